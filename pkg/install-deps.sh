#!/usr/bin/env bash
# Installs what building and testing farwarp needs, through the system's package manager, and only what is missing.
#
#   pkg/install-deps.sh [build|check]     (default: check)
#
# Says what it installs. Without root it prints the one command to run and exits with 1. Knows apt (Debian, Ubuntu), dnf
# (Fedora, RHEL) and pacman (Arch). Does nothing, and says nothing, when all is there.
set -eu

purpose=${1:-check}

# What is needed: a test that it is there | package names of apt | dnf | pacman
needs='
command cc        |gcc            |gcc            |gcc
command python3   |python3        |python3        |python
command meson     |meson          |meson          |meson
command ninja     |ninja-build    |ninja-build    |ninja
command pkg-config|pkg-config     |pkgconf        |pkgconf
header string.h   |libc6-dev      |glibc-devel    |glibc
header lz4.h      |liblz4-dev     |lz4-devel      |lz4
header zstd.h     |libzstd-dev    |libzstd-devel  |zstd
header openssl/ssl.h|libssl-dev   |openssl-devel  |openssl
header zlib.h     |zlib1g-dev     |zlib-devel     |zlib
'

there() {
	case $1 in
	command)
		case $2 in
		cc) command -v cc >/dev/null || command -v gcc >/dev/null ;;
		*) command -v "$2" >/dev/null ;;
		esac ;;
	header)
		for compiler in cc gcc clang; do
			if command -v $compiler >/dev/null; then
				echo "#include <$2>" | $compiler -E -x c - >/dev/null 2>&1
				return
			fi
		done
		return 1 ;;
	esac
}

if command -v apt-get >/dev/null; then column=2; manager='apt-get install -y --no-install-recommends'
elif command -v dnf >/dev/null; then column=3; manager='dnf install -y'
elif command -v pacman >/dev/null; then column=4; manager='pacman -S --needed --noconfirm'
else column=0; manager=''
fi

missing=''
wanted=''
while IFS='|' read -r what apt dnf pacman; do
	[ -n "${what// /}" ] || continue
	read -r kind name <<<"$what"
	if ! there "$kind" "$name"; then
		wanted="$wanted $name"
		case $column in
		2) missing="$missing $apt" ;;
		3) missing="$missing $dnf" ;;
		4) missing="$missing $pacman" ;;
		esac
	fi
done <<<"$needs"
missing=$(echo $missing)
wanted=$(echo $wanted)

[ -n "$wanted" ] || exit 0
if [ -z "$manager" ]; then
	echo "farwarp needs: $wanted" >&2
	echo "No package manager known to this script (apt-get, dnf, pacman) was found; install them and run make again." >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "farwarp needs packages that are not installed ($wanted). Run this, then make again:" >&2
	echo "    sudo $manager $missing" >&2
	exit 1
fi
echo "installing, to $purpose farwarp: $missing"
export DEBIAN_FRONTEND=noninteractive
# A fresh image has no package lists; an old one has stale lists, of which the installer itself complains.
if [ $column = 2 ] && ! $manager $missing >/dev/null 2>&1; then
	apt-get update -q >/dev/null
	$manager $missing >/dev/null
elif [ $column != 2 ]; then
	$manager $missing
fi
