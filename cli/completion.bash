# Bash completion of the modelcache command.
_modelcache() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} commands flags
  commands='get tree stat ls history watch prefetch evict origins status help version'
  case $before in
    -o | --output | --storage) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
  esac
  if [[ $word == -* ]]; then
    flags=$("${COMP_WORDS[0]}" help 2>/dev/null | sed -n 's/\[no-\]/no-/; s/^  .\{4\}\(--[a-z-]*\) .*/\1/p')
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$word")
  elif [[ $COMP_CWORD -eq 1 || $before == help ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word")
  elif [[ $before == origins ]]; then
    COMPREPLY=(check)
  elif [[ ${COMP_WORDS[1]} == tree ]]; then
    mapfile -t COMPREPLY < <(compgen -d -- "$word")
  fi
}
complete -o default -F _modelcache modelcache
