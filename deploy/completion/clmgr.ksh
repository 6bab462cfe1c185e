# Completion of clmgr for Korn shells. Read it in the file that $ENV names: . /path/to/clmgr.ksh
# ksh93 completes clmgr's words with the Tab key. OpenBSD's ksh completes actions and classes. ksh88 (AIX's /usr/bin/ksh) and mksh
# know no programmable completion: there `clmgr_words add rg NODES=` prints what could stand there.

# clmgr_words prints what the last word could become.
clmgr_words() {
  clmgr __complete "$@" 2>/dev/null
}

case ${KSH_VERSION:-} in
*'PD KSH'*)
  set -A complete_clmgr_1 -- $(clmgr __complete '' 2>/dev/null)
  set -A complete_clmgr_2 -- $(clmgr __complete query '' 2>/dev/null)
  ;;
*'MIRBSD KSH'* | *'LEGACY KSH'*) ;;
*'93'*)
  # What follows is no syntax for other shells.
  eval '
  function _clmgr_key {
    [[ ${.sh.edchar} == $'"'\\t'"' && ${.sh.edtext} == clmgr\ * ]] || return 0
    typeset left=${.sh.edtext:0:${.sh.edcol}} common= word= files= n=0
    typeset cur=${left##*[[:space:]]} rest
    set -f
    set -- ${left#clmgr} ${cur:+}
    set +f
    [[ -z $cur ]] && set -- "$@" ""
    clmgr __complete "$@" 2>/dev/null | while IFS= read -r word; do
      [[ $word == :files ]] && { files=yes; continue; }
      (( n++ == 0 )) && { common=$word; continue; }
      while [[ $word != "$common"* ]]; do common=${common%?}; done
    done
    [[ -n $files ]] && (( n == 0 )) && return 0
    rest=${common#"$cur"}
    [[ $common == "$cur"* ]] || rest=
    (( n == 1 )) && [[ $common != *= ]] && rest="$rest "
    .sh.edchar=$rest
    return 0
  }
  trap _clmgr_key KEYBD
  '
  ;;
esac
