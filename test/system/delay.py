"""Delays what the kernel routes into a tun device, and gives it back: delay.py TUN MILLISECONDS. Says `ready` when it does."""
import collections
import fcntl
import os
import select
import struct
import sys
import time

name, delay = sys.argv[1], float(sys.argv[2]) / 1000
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH", name.encode(), 0x0001 | 0x1000))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
print("ready", flush=True)
held = collections.deque()
while True:
    wait = max(0.0, held[0][0] - time.monotonic()) if held else 1.0
    if select.select([tun], [], [], wait)[0]:
        held.append((time.monotonic() + delay, os.read(tun, 65535)))
    while held and held[0][0] <= time.monotonic():
        try:
            os.write(tun, held.popleft()[1])
        except OSError:
            pass  # The device is not up yet.
