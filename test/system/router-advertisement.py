"""A router that says so (RFC 4861): one advertisement every half second out of the named interface, as long as it lives."""
import socket
import struct
import sys
import time

interface = sys.argv[1]
while True:
    try:
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex(interface)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        # Type 134, hop limit 64, no flags, lifetime 1800 s; the kernel fills in the checksum.
        sender.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))
        sender.close()
    except OSError:
        pass  # The cable is unplugged, or has no address yet.
    time.sleep(0.5)
