#!/bin/ksh
# Puts Holdfast under the System Resource Controller of AIX, and takes it out again.
#
#   install.sh install [DIRECTORY]   define the subsystems, their inittab entries and the methods of the error log; programs in
#                                    DIRECTORY (/opt/holdfast/sbin), the method as DIRECTORY/holdfast_errnotify
#   install.sh remove                stop and remove them; state and configuration stay
#   install.sh check                 say what is defined, change nothing
#
# It may be run again: what is there is changed to what it should be. HOLDFAST_ROOT goes before all directories, for tests.
# This script has been run against an emulator of AIX's commands, not on AIX. Read it before you do.

set -u

BIN=${2:-/opt/holdfast/sbin}
ROOT=${HOLDFAST_ROOT:-}
CONFIG=$ROOT/etc/holdfast
STATE=$ROOT/var/lib/holdfast
RUN=$ROOT/var/run/holdfast
LOG=$ROOT/var/hacmp
# The error log's entries of which a method tells: a volume group closed for the loss of its quorum, and an address that another
# machine has too.
LABELS="LVM_SA_QUORCLOSE AIXIF_ARP_DUP_ADDR"
GROUP=holdfast

say() { echo "install.sh: $*" >&2; }
die() { say "$*"; exit 1; }

# PowerHA and Holdfast must not manage the same machine.
refuse_powerha() {
    if lssrc -s clstrmgrES 2>/dev/null | grep -q active; then
        die "PowerHA's clstrmgrES is active on this node: stop and unconfigure PowerHA first"
    fi
}

# subsystem NAME PROGRAM ARGUMENTS NICE OUTPUT defines a subsystem, or changes the one that is there.
#   -S -n 15 -f 9   controlled by signals: SIGTERM to stop, SIGKILL to force
#   -R              respawned when it ends
#   -w 30           seconds between SIGTERM and SIGKILL
#   -E              scheduling priority (nice), 0 is the most favoured
subsystem() {
    name=$1 program=$2 arguments=$3 nice=$4 output=$5
    [ -x "$program" ] || die "$program is missing or not executable"
    if lssrc -s "$name" >/dev/null 2>&1; then
        chssys -s "$name" -p "$program" -a "$arguments" -u 0 -S -n 15 -f 9 -R -Q -w 30 -E "$nice" -i /dev/null -o "$output" -e "$output" -G "$GROUP" ||
            die "chssys -s $name failed"
    else
        mkssys -s "$name" -p "$program" -a "$arguments" -u 0 -S -n 15 -f 9 -R -Q -w 30 -E "$nice" -i /dev/null -o "$output" -e "$output" -G "$GROUP" ||
            die "mkssys -s $name failed"
    fi
}

# boot NAME AFTER starts a subsystem at each boot, behind another entry of the inittab.
boot() {
    name=$1 after=$2
    line="$name:2:once:/usr/bin/startsrc -s $name >/dev/null 2>&1"
    if lsitab "$name" >/dev/null 2>&1; then
        chitab "$line" || die "chitab $name failed"
    else
        mkitab -i "$after" "$line" || die "mkitab $name failed"
    fi
}

# entry_name LABEL is the name of the method's entry in the ODM class errnotify: at most 16 characters.
entry_name() { echo "hf_$1" | cut -c1-16; }

# notify LABEL lets the error daemon run the method when such an entry is written. The numbered words are its to fill in.
notify() {
    name=$(entry_name "$1")
    if [ -n "$(odmget -q en_name="$name" errnotify)" ]; then
        odmdelete -q en_name="$name" -o errnotify >/dev/null || die "odmdelete of errnotify $name failed"
    fi
    stanza=$STATE/errnotify.$$
    cat >"$stanza" <<END
errnotify:
	en_name = "$name"
	en_persistenceflg = 1
	en_label = "$1"
	en_method = "$BIN/holdfast_errnotify \$1 \$6 \$9"
END
    odmadd "$stanza" || die "odmadd of errnotify $name failed (see $stanza)"
    rm -f "$stanza"
}

install() {
    refuse_powerha
    [ -x "$BIN/holdfast_errnotify" ] || die "$BIN/holdfast_errnotify is missing or not executable"
    umask 077
    mkdir -p "$CONFIG" "$STATE" "$RUN" "$LOG/log" "$LOG/adm/history" "$LOG/clverify" || die "cannot make the directories"
    chmod 700 "$CONFIG" "$STATE" "$RUN"
    # The deadman first: it must be there before the daemon asks for it.
    subsystem hfdeadman "$BIN/cldeadman" "--backend halt --socket $RUN/deadman.sock" 0 "$LOG/log/cldeadman.out"
    subsystem holdfast "$BIN/clstrmgrd" "--config $CONFIG/node.yaml" 10 "$LOG/log/clstrmgrd.out"
    boot hfdeadman rctcpip
    boot holdfast hfdeadman
    for label in $LABELS; do
        notify "$label"
    done
    say "defined; start with: startsrc -s hfdeadman && startsrc -s holdfast"
}

remove() {
    for name in holdfast hfdeadman; do
        if lssrc -s "$name" 2>/dev/null | grep -q active; then
            stopsrc -s "$name" || die "stopsrc -s $name failed: bring the node's services offline first (clmgr offline node)"
            # stopsrc does not wait.
            i=0
            while lssrc -s "$name" | grep -q -e active -e stopping; do
                i=$((i + 1))
                [ $i -lt 60 ] || die "$name does not stop: it stays defined"
                sleep 1
            done
        fi
        lsitab "$name" >/dev/null 2>&1 && rmitab "$name"
        if lssrc -s "$name" >/dev/null 2>&1; then
            rmssys -s "$name" || die "rmssys -s $name failed"
        fi
    done
    for label in $LABELS; do
        name=$(entry_name "$label")
        [ -z "$(odmget -q en_name="$name" errnotify)" ] || odmdelete -q en_name="$name" -o errnotify >/dev/null ||
            die "odmdelete of errnotify $name failed"
    done
    say "removed; $STATE and $CONFIG are left"
}

check() {
    for name in hfdeadman holdfast; do
        lssrc -s "$name" 2>&1
        lsitab "$name" 2>&1
    done
    for label in $LABELS; do
        odmget -q en_name="$(entry_name "$label")" errnotify
    done
}

case "${1:-}" in
install) install ;;
remove) remove ;;
check) check ;;
*)
    say "usage: install.sh install [DIRECTORY] | remove | check"
    exit 2
    ;;
esac
