# Bash completion for vmm(1). Needs nothing but bash; installed where bash-completion finds it.

# Files that begin with $1, directories with a slash to go on from.
_vmm_files() {
  local name
  while IFS= read -r name; do
    if [[ -d $name ]]; then COMPREPLY+=("$name/"); else COMPREPLY+=("$name"); fi
  done < <(compgen -f -- "$1")
  compopt -o filenames -o nospace 2>/dev/null
  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != */ ]] && compopt +o nospace 2>/dev/null
}

_vmm_words() {
  local IFS=$' \n'
  mapfile -t COMPREPLY < <(compgen -W "$2" -- "$1")
}

# Values of the option $1 that begin with $2. Both are as typed: bash itself splits words at '=' and
# ':', and wants back only what follows the last of them.
_vmm_value() {
  local option=$1 value=$2
  case $option in
    --on-crash)
      case $value in
        core=*) _vmm_files "${value#core=}" ;;
        *) _vmm_words "$value" 'exit stop gdb core core=' ;;
      esac
      ;;
    --record-exits) _vmm_words "$value" '0 1024 16384' ;;
    --kernel | --initrd | --module | --config | --control | --symbols | --restore | --result) _vmm_files "$value" ;;
    --boot) _vmm_words "$value" 'auto linux64 bzimage pvh multiboot multiboot2 flat' ;;
    --initrd-unpack) _vmm_words "$value" 'auto on off' ;;
    --mem) _vmm_words "$value" '128M 256M 512M 1G 2G 4G' ;;
    --mem-backing) _vmm_words "$value" 'anonymous memfd hugetlbfs' ;;
    --cpu) _vmm_words "$value" 'host' ;;
    --cpus) _vmm_words "$value" '1 2 4 8' ;;
    --restore-memory) _vmm_words "$value" 'mapped userfaultfd userfaultfd,record= userfaultfd,prefetch=' ;;
    --irqchip) _vmm_words "$value" 'auto kernel split user none' ;;
    --clock) _vmm_words "$value" 'host frozen base=utc base=localtime rate=' ;;
    --serial)
      case $value in
        file:* | unix:*) _vmm_files "${value#*:}" ;;
        *)
          _vmm_words "$value" 'stdio file: pty unix: null'
          [[ ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
          ;;
      esac
      ;;
    --console)
      case $value in
        file:* | unix:*) _vmm_files "${value#*:}" ;;
        *)
          _vmm_words "$value" 'stdio file: pty unix: null'
          compopt -o nospace 2>/dev/null
          ;;
      esac
      ;;
    --watchdog) _vmm_words "$value" 'action=reset action=poweroff action=panic action=stop action=none' ;;
    --balloon)
      _vmm_words "${value##*,}" 'size= deflate-on-oom free-page-reporting stats stats='
      compopt -o nospace 2>/dev/null
      ;;
    --pmem)
      case $value in
        *,*) _vmm_words "${value##*,}" 'size= ro discard-writes' ;;
        file=*) _vmm_files "${value#file=}" ;;
        *)
          _vmm_words "$value" 'file='
          compopt -o nospace 2>/dev/null
          ;;
      esac
      ;;
    --memory-max) _vmm_words "$value" '1G 2G 4G' ;;
    --iothreads) _vmm_words "$value" '1 2 4 8' ;;
    --transport) _vmm_words "$value" 'pci mmio mmio-cmdline' ;;
    --disk)
      case $value in
        *,cow=*) _vmm_files "${value##*,cow=}" ;;
        vhost-user-blk=*,*) _vmm_words "${value##*,}" 'queues= reconnect' ;;
        *,*) _vmm_words "${value##*,}" 'ro serial= queues= iothread= cow cow= direct discard bps= bps-rd= bps-wr= iops= iops-rd= iops-wr= burst=' ;;
        path=* | vhost-user-blk=*) _vmm_files "${value#*=}" ;;
        *)
          _vmm_words "$value" 'path= nbd: vhost-user-blk='
          compopt -o nospace 2>/dev/null
          ;;
      esac
      ;;
    --escape) _vmm_words "$value" 'on off ^A ^T' ;;
    --debug-console)
      _vmm_words "$value" 'off stdio'
      local words=("${COMPREPLY[@]}")
      COMPREPLY=()
      _vmm_files "$value"
      COMPREPLY+=("${words[@]}")
      ;;
    --fw-cfg)
      case $value in
        *file=*) _vmm_files "${value#*file=}" ;;
        *)
          _vmm_words "$value" 'name=opt/'
          compopt -o nospace 2>/dev/null
          ;;
      esac
      ;;
    --net)
      case $value in
        *pcap=*) _vmm_files "${value##*pcap=}" ;;
        tap=*,*) _vmm_words "${value##*,}" 'queues= mac= pcap= iothread=' ;;
        user,*) _vmm_words "${value##*,}" 'hostfwd= restricted mac= pcap= iothread=' ;;
        fd=*,* | passt,* | passt=*,*) _vmm_words "${value##*,}" 'mac= pcap= iothread=' ;;
        vhost-user=*,*) _vmm_words "${value##*,}" 'mac=' ;;
        tap=*) _vmm_words "${value#tap=}" "$(compgen -G '/sys/class/net/*/tun_flags' | cut -d/ -f5)" ;;
        vhost-user=*) _vmm_files "${value#vhost-user=}" ;;
        passt=*) _vmm_files "${value#passt=}" ;;
        *)
          _vmm_words "$value" 'user tap= fd= passt passt= vhost-user='
          compopt -o nospace 2>/dev/null
          ;;
      esac
      ;;
    --share)
      case $value in
        *,*) _vmm_words "${value##*,}" 'tag= ro' ;;
        path=* | socket=*) _vmm_files "${value#*=}" ;;
        *:*) _vmm_words "${value##*:}" '' ;;
        *) _vmm_files "$value" ;;
      esac
      ;;
    --vsock)
      case $value in
        *path=*) _vmm_files "${value#*path=}" ;;
        *)
          _vmm_words "${value##*,}" 'cid= path='
          compopt -o nospace 2>/dev/null
          ;;
      esac
      ;;
    --debug-exit) _vmm_words "$value" '0xf4 off' ;;
    --quirk)
      case $value in
        *=*) _vmm_words "${value#*=}" 'on off auto' ;;
        *)
          _vmm_words "$value" 'complete-instructions= syscall-fixup= hide-hypercalls= unpack-initrd= interpret-kernel='
          compopt -o nospace 2>/dev/null
          ;;
      esac
      ;;
    --trace)
      _vmm_words "$value" 'pio mmio hlt shutdown irq-window interrupted system debug fail-entry
        emulation-failure internal-error ioapic-eoi msr unknown cpuid irq requests syscalls'
      ;;
    *) return 1 ;;
  esac
  return 0
}

_vmm() {
  COMPREPLY=()
  # Put words that bash split at '=' and ':' together again.
  local words=() word i glue=''
  for ((i = 0; i <= COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    if [[ $i -gt 0 && ($word == [=:] || -n $glue) ]]; then
      words[${#words[@]} - 1]+=$word
      if [[ $word == [=:] ]]; then glue=1; else glue=''; fi
    else
      words+=("$word")
    fi
  done
  local count=${#words[@]}
  local current=${words[count - 1]} previous=${words[count - 2]} command=${words[1]}

  if [[ $count -le 2 ]]; then
    _vmm_words "$current" 'run test ctl stat top trace profile snapshot core restore inspect diff doctor help --help --version'
    return
  fi
  case $command in
    run)
      if [[ $current == --*=* ]]; then
        _vmm_value "${current%%=*}" "${current#*=}"
      elif [[ $current != -* && $previous != --trace && $previous != --balloon && $previous != --watchdog ]] && _vmm_value "$previous" "$current"; then
        :
      else
        _vmm_words "$current" '--kernel --initrd --module --cmdline --cmdline-only --boot --kaslr
          --initrd-unpack --restore --restore-memory --mem --mem-backing --thp --mem-prealloc --cpus --cpu --irqchip
          --tick-share --quirk --fw-cfg --uuid --clock --disk --pmem --memory-max --iothreads --rng --balloon --transport --hotplug-slots
          --watchdog --testdev --net --share
          --vsock --serial --console --escape --debug-console --control --gdb --gdb-wait --gdb-time --on-crash --record-exits --symbols --no-reboot --timeout --result --debug-exit --trace --verbose
          --quiet --config --help'
      fi
      ;;
    test)
      case $previous in
        --junit) _vmm_files "$current" ;;
        --jobs | -j) _vmm_words "$current" '1 2 4 8' ;;
        --timeout) _vmm_words "$current" '10 60 300' ;;
        --pass-value) _vmm_words "$current" '0 16' ;;
        *)
          if [[ $current == -* ]]; then
            _vmm_words "$current" '--jobs --timeout --pass-value --junit --help'
          else
            _vmm_files "$current"
          fi
          ;;
      esac
      ;;
    restore)
      if [[ $current == -* ]]; then
        _vmm_words "$current" '--disk --net --vsock --irqchip --restore-memory --serial --control --timeout --verbose --quiet --help'
      else
        _vmm_value "$previous" "$current" || _vmm_files "$current"
      fi
      ;;
    core) _vmm_files "$current" ;;
    snapshot)
      if [[ $current == -* ]]; then _vmm_words "$current" '--base --help'; else _vmm_files "$current"; fi
      ;;
    stat)
      if [[ $current == -* ]]; then _vmm_words "$current" '--json --help'; else _vmm_files "$current"; fi
      ;;
    top)
      if [[ $current == -* ]]; then _vmm_words "$current" '--help'; else _vmm_files "$current"; fi
      ;;
    profile)
      if [[ $current == -* ]]; then _vmm_words "$current" '--output --seconds --hz --help'; else _vmm_files "$current"; fi
      ;;
    trace)
      if [[ $current == -* ]]; then _vmm_words "$current" '--output --chrome --help'; else _vmm_files "$current"; fi
      ;;
    inspect)
      if [[ $current == -* ]]; then _vmm_words "$current" '--json --help'; else _vmm_files "$current"; fi
      ;;
    diff)
      if [[ $current == -* ]]; then _vmm_words "$current" '--symbols --json --help'; else _vmm_files "$current"; fi
      ;;
    ctl)
      if [[ $current == -* ]]; then
        _vmm_words "$current" '--json --help'
        return
      fi
      # Words without options: the socket, the command, what belongs to it.
      local rest=()
      for word in "${words[@]:2}"; do [[ $word == -* ]] || rest+=("$word"); done
      case ${#rest[@]}:${rest[1]} in
        1:*) _vmm_files "$current" ;;
        2:*) _vmm_words "$current" 'status pause resume power-button quit balloon memory disk net gdb snapshot core' ;;
        3:snapshot | 3:core | 5:snapshot) _vmm_files "$current" ;;
        4:snapshot) _vmm_words "$current" 'base' ;;
        3:disk) _vmm_words "$current" 'disk0 add remove' ;;
        3:net) _vmm_words "$current" 'net0 add remove' ;;
        3:memory) _vmm_words "$current" '512M 1G 2G' ;;
        3:balloon) _vmm_words "$current" '0 256M 512M 1G' ;;
        4:disk | 4:net)
          case ${rest[2]} in
            add) _vmm_value "--${rest[1]}" "$current" ;;
            remove) _vmm_words "$current" "${rest[1]}0" ;;
            disk*) _vmm_words "$current" 'resize limit' ;;
            *) _vmm_words "$current" 'up down' ;;
          esac
          ;;
        5:disk | 5:net) [[ ${rest[2]} != remove ]] || _vmm_words "$current" 'force' ;;
      esac
      ;;
    doctor) _vmm_words "$current" '--json --help' ;;
    help) _vmm_words "$current" 'run test ctl stat top trace profile snapshot core restore inspect diff doctor' ;;
  esac
}

complete -F _vmm vmm
