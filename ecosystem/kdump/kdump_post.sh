#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# An example for kdump_post in /etc/kdump.conf (Fedora, RHEL). It runs in the capture kernel, where
# there is no Python: so it keeps what only that kernel knows, for a check after the reboot.
#
#   kdump_post /usr/libexec/vmcheck/kdump_post.sh
#
# The capture kernel warns once for each CPU whose note is empty, and /proc/vmcore then drops that
# note; nothing in the dump tells how many there were.
saved=$1 # exit status of the core collector
root=${VMCHECK_CRASH_ROOT:-/kdumproot/var/crash}

newest=
for folder in "$root"/*/; do
    [ -d "$folder" ] || continue
    if [ -z "$newest" ] || [ "$folder" -nt "$newest" ]; then
        newest=$folder
    fi
done
[ -n "$newest" ] || exit 0

[ -e "$newest/kexec-dmesg.log" ] || dmesg >"$newest/kexec-dmesg.log"
{
    echo "core_collector_status=$saved"
    echo "empty_notes=$(grep -c 'Zero PT_NOTE entries found' "$newest/kexec-dmesg.log")"
} >"$newest/vmcheck-capture.txt"
exit 0 # never the reason why a capture failed
