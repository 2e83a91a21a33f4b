#!/bin/sh
# First process of a lab host: it gives the host its own disk, /run, /etc, name and identity, and keeps the host's one
# service running as a service manager would. Started in new mount, uts and pid namespaces, inside the host's network.
#   init.sh HOST CONTROL RUN LIB LOG ETC REPOSITORY GROUP
# Service: LIB/lab/service (a script), kept running while RUN/lab/on exists; a word on RUN/lab/wake makes it look again.
set -eu
host=$1 control=$2 run=$3 lib=$4 log=$5 etc=$6 repository=$7 group=$8

# /proc is still the machine's, so this is the pid and start time that the machine knows us by.
read -r pid _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ start _ </proc/self/stat
echo "$pid $start" >"$control/init.pid"

mount --make-rprivate /
hostname "$host"
# The names of the other hosts' networks are not ours to hold: a held network outlives its power-off.
umount -l /run/netns 2>/dev/null || :

# An overlay keeps what the host changes in /etc to itself, atomic renames included. Where the kernel has none (or the
# disk is itself an overlay), the files that matter are bound one by one.
if ! mount -t overlay overlay -o "lowerdir=/etc,upperdir=$etc/upper,workdir=$etc/work" /etc 2>/dev/null; then
  for name in hosts hostname machine-id resolv.conf; do
    [ -e "/etc/$name" ] && mount --bind "$etc/upper/$name" "/etc/$name"
  done
fi
# The repository stays reachable when it lives under what the host gets anew.
case "$repository" in
  /var/lib/*)
    top=${repository#/var/lib/} top=${top%%/*}
    mkdir -p "$lib/$top"
    mount --bind "/var/lib/$top" "$lib/$top"
    ;;
esac
mount --bind "$log" /var/log
mount --rbind "$lib" /var/lib
mount --rbind "$run" /run
mount -t proc proc /proc
# A reboot has another boot id.
mount --bind /run/lab/boot_id /proc/sys/kernel/random/boot_id
mount -t sysfs sysfs /sys
# In a control group of its own, which is the root of what this host sees.
[ -z "$group" ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup

start='echo $$ >/run/lab/service.pid; if [ -e /sys/fs/cgroup/service ]; then echo $$ >/sys/fs/cgroup/service/cgroup.procs; fi; exec sh /var/lib/lab/service'
exec 3<>/run/lab/wake
(
  while :; do
    while [ -e /run/lab/on ]; do
      # A session of its own: what the service manager stops is this whole session, and nothing else.
      setsid sh -c "$start" 3<&- </dev/null >>/var/log/isthmus.log 2>&1 || :
      [ -e /run/lab/on ] && sleep 0.5
    done
    read -r _ <&3
  done
) &
touch /run/lab/ready
# Keeps `wait` waiting, which is what reaps the orphans of this host.
sleep infinity 3<&- &
while :; do wait || :; done
