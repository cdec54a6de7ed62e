#!/bin/sh
# Makes a Debian root file system (this one) a debug image: run inside it, as root, by the Dockerfile and by mmdebstrap.
set -eu
# The account everything runs as.  Home and /tmp are tmpfs at run time: nothing of ours is put there.
echo 'debug:x:65532:65532:debug:/home/debug:/bin/bash' >>/etc/passwd
echo 'debug:x:65532:' >>/etc/group
mkdir -p /home/debug /run/doorward
chown 65532:65532 /home/debug /run/doorward
chmod 0700 /run/doorward
# No file that changes who one is: no-new-privileges forbids it anyway, and what is not there needs no forbidding.
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# Nothing that tells two builds apart, nothing that is not read at 3 a.m.
rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /etc/machine-id
rm -f /etc/hostname /etc/resolv.conf
