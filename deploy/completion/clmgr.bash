# Completion of clmgr and its tools for bash 3 and later. Copy it to /etc/bash_completion.d/, or: source <(clmgr completion bash)
# The words come from clmgr itself, which knows the tables and asks the daemon for the names of objects.

_clmgr() {
  local left=${COMP_LINE:0:COMP_POINT} cur=${COMP_WORDS[COMP_CWORD]} tool=${COMP_WORDS[0]##*/} program=clmgr
  local full cut word files='' open='' IFS=$' \t\n'
  local -a typed ask
  read -ra typed <<<"$left"
  case $left in *[[:space:]]) typed[${#typed[@]}]='' ;; esac
  full=${typed[${#typed[@]}-1]}
  # bash splits words at COMP_WORDBREAKS ('=' and ':'), and replaces only the last piece.
  case $cur in '=' | ':') cur='' ;; esac
  cut=${full%"$cur"}
  if [ "$tool" = clmgr ]; then
    program=${COMP_WORDS[0]}
    ask=("${typed[@]:1}")
  else
    case ${COMP_WORDS[0]} in */*) program=${COMP_WORDS[0]%/*}/clmgr ;; esac
    ask=("@$tool" "${typed[@]:1}")
  fi
  COMPREPLY=()
  while IFS= read -r word; do
    case $word in
      '') continue ;;
      :files) files=yes; continue ;;
      *=) open=yes ;;
    esac
    COMPREPLY[${#COMPREPLY[@]}]=${word#"$cut"}
  done < <("$program" __complete "${ask[@]}" 2>/dev/null)
  if [ -n "$files" ]; then
    while IFS= read -r word; do COMPREPLY[${#COMPREPLY[@]}]=$word; done < <(compgen -f -- "$cur")
    compopt -o filenames 2>/dev/null
  fi
  if [ -n "$open" ]; then compopt -o nospace 2>/dev/null; fi
  return 0
}

complete -F _clmgr clmgr clRGinfo clRGmove cltopinfo cllsif clshowres clshowsrv cldump cldisp clverify clsnapshot lscluster
