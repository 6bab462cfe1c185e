#!/bin/sh
# Records what this AIX system's commands print, for those who build and test Holdfast without one.
#
#   capture.sh [-t SECONDS] [FILE]     FILE is written and must not exist (default ./holdfast-capture.HOST.txt)
#
# It only looks: each command below lists, queries or prints its usage; none of them changes anything, and nothing is written but
# FILE. Each may take SECONDS (default 30) before it is ended. Run it as root, or some commands will refuse, which is
# recorded too. FILE then holds host names, addresses, serial numbers and what the error log says: read it before you give it away.
#
# One command's record in FILE:
#
#   @ lsvg -o          the command
#   O rootvg           what it wrote to its standard output, each line behind "O "
#   O @rc 0            the last of them: its exit status
#   E ...              what it wrote to its standard error
#
# Runs under ksh and every POSIX shell. It has been run against an emulator of these commands, not on AIX.

set -u
LIMIT=30

usage() {
    echo "usage: capture.sh [-t SECONDS] [FILE]" >&2
    exit 2
}

while getopts t: option; do
    case $option in
    t) LIMIT=$OPTARG ;;
    *) usage ;;
    esac
done
shift $((OPTIND - 1))
case $LIMIT in
'' | *[!0-9]* | 0) usage ;;
esac
[ $# -le 1 ] || usage
FILE=${1:-./holdfast-capture.$(uname -n).txt}

case $(uname -s) in
AIX) ;;
*)
    echo "capture.sh: this is $(uname -s), not AIX" >&2
    exit 1
    ;;
esac

set -C # an existing file is not overwritten
umask 077
if ! : >"$FILE"; then
    echo "capture.sh: $FILE cannot be made (it must not exist yet)" >&2
    exit 1
fi
set +C
exec 4>>"$FILE" || exit 1

# bounded runs a command and ends it when its time is over.
bounded() {
    "$@" </dev/null 4>&- &
    child=$!
    (
        sleep "$LIMIT"
        kill "$child"
        sleep 1
        kill -9 "$child"
    ) </dev/null >/dev/null 2>&1 4>&- &
    watch=$!
    wait "$child"
    status=$?
    kill -9 "$watch" 2>/dev/null # some shells take others only when their sleep has ended
    return $status
}

# run records one command. A command that is not there is recorded by its status 127.
run() {
    printf '@ %s\n' "$*" >&4
    errors=$({ {
        bounded "$@"
        printf '\n@rc %s\n' $?
    } | sed -e 4000q -e 's/^/O /' >&4; } 2>&1)
    [ -z "$errors" ] || printf '%s\n' "$errors" | sed -e 400q -e 's/^/E /' >&4
}

# words prints the first word of each line of a command's output, for loops; at most 64.
words() { "$@" 2>/dev/null </dev/null | awk 'NF > 0 && n++ < 64 {print $1}'; }

{
    echo "# holdfast capture 1"
    echo "# LANG=${LANG:-} LC_ALL=${LC_ALL:-} LC_MESSAGES=${LC_MESSAGES:-} user=$(id -un 2>/dev/null)"
} >&4

# First a few with the language as it is set, then everything with C.
run lsvg -o
run lssrc -s syslogd
run lsvg hfnosuchvg
LC_ALL=C
export LC_ALL
echo "# LC_ALL=C" >&4

# The system.
run uname -a
run oslevel -s
run getconf KERNEL_BITMODE
run lslpp -Lqc bos.rte bos.rte.lvm bos.net.tcp.client bos.net.nfs.client rsct.core.rmc rsct.basic.rte bos.cluster.rte cluster.es.server.rte
run ps -e -o comm
run ps -o etime= -p 1
run ps -o stat= -p $$

# Networks.
run ifconfig -a
run netstat -in
run netstat -idn
run netstat -rn
run arp -an
run ndp -an
for i in $(ifconfig -a 2>/dev/null | sed -n 's/^\(en[0-9]*\): .*/\1/p'); do
    run entstat -d "$i"
    run lsattr -El "$i"
done

# Volume groups and disks.
run lspv
run lsvg
run lsvg -o
for g in $(words lsvg); do
    run lsvg "$g"
    run lsvg -L "$g"
    run lsvg -l "$g"
    run lsvg -L -l "$g"
    run lsvg -p "$g"
    run getlvodm -v "$g"
    run getlvodm -T "$g"
done
run lsdev -Cc disk
run lspath -F "status:name:parent:connection"
for d in $(words lspv); do
    run lspv "$d"
    run lsattr -El "$d" -a reserve_policy -a PR_key_value
    run devrsrv -c query -l "$d"
    run lqueryvg -p "$d" -T
    run lqueryvg -p "$d" -v
    run getlvodm -j "$d"
done
run lvlstmajor
# The messages for what does not exist, and usages.
run lsvg hfnosuchvg
run lspv hfnosuchdisk
run varyonvg
run varyoffvg
run importvg

# File systems and exports.
run mount
run df -Pk
run lsfs -c
run lsfs -qc
run cat /etc/filesystems
run exportfs
run cat /etc/exports
run fuser -xuc /home

# The System Resource Controller, inittab and error log.
run lssrc -a
run lssrc -s syslogd
run lssrc -Ss syslogd
run lssrc -s hfnosuchsubsys
run lssrc -s cthags
run lsitab -a
run lsitab hfnosuchentry
run odmget -q subsysname=syslogd SRCsubsys
run odmget SRCnotify
run odmget errnotify
run errpt
run errpt -a -j AA8AB241
run shconf -d

# Other cluster managers, and NIM.
run lssrc -s clstrmgrES
run lscluster -m
run lsrpdomain
run cat /etc/niminfo
run lsnim
run lsnim -l

echo "# end" >&4
exec 4>&-
echo "capture.sh: $FILE is written: $(awk '/^@ /' "$FILE" | awk 'END {print NR}') commands. Read it before you give it away."
