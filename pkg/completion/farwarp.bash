# bash completion for farwarp. A test keeps it equal to the commands and their options.

_farwarp() {
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} word
	if [ "$COMP_CWORD" = 1 ]; then
		COMPREPLY=($(compgen -W 'run trace replay serve doctor inspect help --help --version' -- "$current"))
		return
	fi
	case $command in
	run)
		# Behind "--", or the first word that is no option, the program's own completion takes over.
		for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
			if [ "$word" = -- ]; then
				COMPREPLY=($(compgen -c -f -- "$current"))
				return
			fi
		done
		case $previous in
		--device|-d|--backend|-b) COMPREPLY=($(compgen -W 'soft local native' -- "$current")) ;;
		--cc|-c) COMPREPLY=($(compgen -W '7.5 8.0 8.6 8.9 9.0 10.0 12.0 12.1' -- "$current")) ;;
		--mem|-m) COMPREPLY=($(compgen -W '1G 4G 8G 16G' -- "$current")) ;;
		--sms|-s|--threads|-t) ;;
		--server|-S) COMPREPLY=($(compgen -W 'unix: tls: tcp: vsock:' -- "$current")) ;;
		*) COMPREPLY=($(compgen -W '--device --server --cc --mem --sms --threads --quiet --help --' -- "$current")
		              $(compgen -c -- "$current")) ;;
		esac ;;
	trace)
		for word in "${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
			if [ "$word" = -- ]; then
				COMPREPLY=($(compgen -c -f -- "$current"))
				return
			fi
		done
		case $previous in
		--output|-o|--record) COMPREPLY=($(compgen -f -- "$current")) ;;
		--expr|-e) COMPREPLY=($(compgen -W 'cuLaunch* cuMemcpy* %sync %async %local private !private !cuGetProcAddress' -- "$current")) ;;
		--sort) COMPREPLY=($(compgen -W 'time calls max awaited name' -- "$current")) ;;
		--hang) ;;
		--device|-d|--backend) COMPREPLY=($(compgen -W 'soft local native' -- "$current")) ;;
		--cc) COMPREPLY=($(compgen -W '7.5 8.0 8.6 8.9 9.0 10.0 12.0 12.1' -- "$current")) ;;
		--mem|-m) COMPREPLY=($(compgen -W '1G 4G 8G 16G' -- "$current")) ;;
		--server|-S) COMPREPLY=($(compgen -W 'unix: tls: tcp: vsock:' -- "$current")) ;;
		*) COMPREPLY=($(compgen -W '--output --expr --count --lines-and-count --sort --json --clock --relative --callers --hang --record
		              --device --server --cc --mem --sms --threads --quiet --help --' -- "$current")
		              $(compgen -c -- "$current")) ;;
		esac ;;
	replay)
		case $previous in
		--show) ;;
		--device|-d|--backend) COMPREPLY=($(compgen -W 'soft local native' -- "$current")) ;;
		--cc|-c) COMPREPLY=($(compgen -W '7.5 8.0 8.6 8.9 9.0 10.0 12.0 12.1' -- "$current")) ;;
		--mem|-m) COMPREPLY=($(compgen -W '1G 4G 8G 16G' -- "$current")) ;;
		--server|-S) COMPREPLY=($(compgen -W 'unix: tls: tcp: vsock:' -- "$current")) ;;
		*) COMPREPLY=($(compgen -W '--list --all --show --device --server --cc --mem --sms --threads --quiet --help' -- "$current")
		              $(compgen -f -- "$current")) ;;
		esac ;;
	serve)
		case $previous in
		--listen|-l) COMPREPLY=($(compgen -W 'unix: tls: tcp: vsock:' -- "$current")) ;;
		--backend|-b) COMPREPLY=($(compgen -W 'native soft' -- "$current")) ;;
		--cc|-c) COMPREPLY=($(compgen -W '7.5 8.0 8.6 8.9 9.0 10.0 12.0 12.1' -- "$current")) ;;
		--mem|-m) COMPREPLY=($(compgen -W '1G 4G 8G 16G' -- "$current")) ;;
		--cert|--key|--client-ca) COMPREPLY=($(compgen -f -- "$current")) ;;
		--self-signed) COMPREPLY=($(compgen -d -- "$current")) ;;
		--image-cache) COMPREPLY=($(compgen -d -W 'off' -- "$current")) ;;
		--image-cache-size) COMPREPLY=($(compgen -W '512M 2G 8G' -- "$current")) ;;
		--max-clients|--devices|--max-threads|--max-handles|--allow-uid|--drain) ;;
		--memory) COMPREPLY=($(compgen -W '1G 4G 8G 16G' -- "$current")) ;;
		--log-format) COMPREPLY=($(compgen -W 'text json' -- "$current")) ;;
		*) COMPREPLY=($(compgen -W '--listen --backend --devices --no-check --cc --mem --memory --max-clients --max-threads --max-handles --allow-uid --image-cache --image-cache-size --drain --log-format --cert --key --client-ca --self-signed --insecure --help' -- "$current")) ;;
		esac ;;
	doctor)
		case $previous in
		--root|-r|--driver|--python) COMPREPLY=($(compgen -d -- "$current")) ;;
		--record|--replay) COMPREPLY=($(compgen -f -- "$current")) ;;
		--format) COMPREPLY=($(compgen -W 'text json html nagios npd prometheus slurm' -- "$current")) ;;
		--explain) COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" doctor --list 2>/dev/null | cut -d' ' -f1)" -- "$current")) ;;
		--deadline|-t) ;;
		*) COMPREPLY=($(compgen -W '--json --format --quick --deep --record --redact --replay --explain --list --watch --root --error --driver --load --python --deadline --help' -- "$current")) ;;
		esac ;;
	inspect)
		case $previous in
		--cc|-c) COMPREPLY=($(compgen -W '7.5 8.0 8.6 8.9 9.0 10.0 12.0 12.1' -- "$current")) ;;
		--cuda|-u) COMPREPLY=($(compgen -W '11.8 12.4 12.8 13.0' -- "$current")) ;;
		--python|-p|--root|-r) COMPREPLY=($(compgen -d -- "$current")) ;;
		*) COMPREPLY=($(compgen -W '--cc --cuda --python --root --all --json --help' -- "$current") $(compgen -f -- "$current")) ;;
		esac ;;
	help)
		COMPREPLY=($(compgen -W 'run trace replay serve doctor inspect' -- "$current")) ;;
	esac
}
complete -o default -F _farwarp farwarp
