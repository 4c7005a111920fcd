# shellcheck shell=bash
# What the scripts of this folder share: messages, the cache folder, apt, and packages that are
# unpacked without being installed.  Sourced, never run.

# shellcheck disable=SC2034  # for those who source this
repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# As launcher/cache.py has it: the XDG specification has relative paths ignored.
case ${XDG_CACHE_HOME:-} in
/*) cache=$XDG_CACHE_HOME/qemu-launcher ;;
*) cache=$HOME/.cache/qemu-launcher ;;
esac
me=$(basename -- "$0")

# All messages go to stderr: stdout belongs to what a script was asked for.
say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# usage: prints the header comment of the script itself, so that help and header cannot differ.
usage() { sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"; }

# lock NAME: one run at a time per NAME and user; the lock goes when the script ends, however it ends.
lock() {
    mkdir -p "$cache"
    exec 9>"$cache/$1.lock"
    flock -n 9 || {
        say "waiting for another run that holds $cache/$1.lock"
        flock 9
    }
}

# --- packages of the system ---------------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -- "$@"
    else
        die "needs root for: $* (no sudo here)"
    fi
}

# may_install: whether as_root would work without a question that nobody is there to answer.
may_install() { [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; }; }

# need_packages PACKAGE...: installs those that are missing; no network when none is.
need_packages() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install)
    # The lists that are there may be good enough, but a fresh image has none and an old one names
    # versions that the mirror has dropped.
    as_root "${install[@]}" "${missing[@]}" >/dev/null 2>&1 || {
        as_root apt-get -qq update >&2
        as_root "${install[@]}" "${missing[@]}" >/dev/null
    }
}

# find_qemu: QEMU as the distribution has it; without the right to install it, the same release unpacked.
find_qemu() {
    command -v qemu-system-x86_64 && return 0
    if may_install; then
        need_packages qemu-system-x86
        command -v qemu-system-x86_64
    else
        "$repo/scripts/qemu-matrix" --print 7.2
    fi
}

# --- packages that are only unpacked ------------------------------------------------------------

# mirrors: the addresses of Debian archives in this machine's own apt sources, both formats, the
# system's first.  No address is written down here: a machine may only reach the mirror it names.
mirrors() {
    local file
    {
        for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
            [ -r "$file" ] && sed -nE 's/^[[:space:]]*deb[[:space:]]+(\[[^]]*\][[:space:]]*)?([^[:space:]]+).*/\2/p' "$file"
        done
        for file in /etc/apt/sources.list.d/*.sources; do
            [ -r "$file" ] && sed -nE 's/^URIs:[[:space:]]*//Ip' "$file" | tr -s ' \t' '\n'
        done
    } | sed 's:/*$::' | awk '/debian/ && !seen[$0]++'
}

# private_apt FOLDER COMMAND...: an apt of our own that neither reads nor changes the system's lists,
# status, preferences or cache, and therefore needs no root.
private_apt() {
    local folder=$1
    shift
    APT_CONFIG=$folder/apt.conf "$@"
}

# private_apt_init FOLDER SUITE...: the lists of these suites; false (and apt's words on stderr) when
# a suite is not to be had from any mirror that the system names.
private_apt_init() {
    local folder=$1 suite
    shift
    mkdir -p "$folder/lists/partial" "$folder/archives/partial" "$folder/etc"
    : >"$folder/status"
    # An empty status makes apt resolve every dependency down to libc.  Sandbox user root: _apt may not
    # be able to enter a cache folder below a home folder.
    cat >"$folder/apt.conf" <<CONF
Dir::Etc::SourceList "$folder/sources.list";
Dir::Etc::SourceParts "$folder/etc";
Dir::Etc::Preferences "$folder/preferences";
Dir::Etc::PreferencesParts "$folder/etc";
Dir::State "$folder";
Dir::State::Lists "$folder/lists";
Dir::State::Status "$folder/status";
Dir::Cache "$folder";
Dir::Cache::Archives "$folder/archives";
Dir::Log "$folder";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::Retries "3";
quiet "1";
CONF
    : >"$folder/sources.list"
    for suite in "$@"; do
        private_apt_add "$folder" "$suite" || return 1
    done
    private_apt "$folder" apt-get -q update >"$folder/update.log" 2>&1 || {
        tail -n 5 "$folder/update.log" >&2
        return 1
    }
}

# private_apt_add FOLDER SUITE: one more suite, from the first mirror that has it.
private_apt_add() {
    local folder=$1 suite=$2 keyring options="" mirror
    # The keyring package holds the keys of the releases that have left support too; with it every
    # suite of the matrix verifies, so none of them is ever marked as trusted.
    for keyring in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [ -r "$keyring" ] && options="[signed-by=$keyring] " && break
    done
    : >"$folder/try.log"
    # A suite that has left the mirror lives on in the archive, which a mirror or proxy carries under
    # the same host as debian-archive/debian.
    for mirror in $(mirrors | grep -vE 'security' | sed -E 'p;s:/debian$:/debian-archive/debian:' | awk '!seen[$0]++'); do
        if [ -n "$(private_apt_try "$folder" "$options" "$mirror" "$suite")" ]; then
            printf 'deb %s%s %s main\n' "$options" "$mirror" "$suite" >>"$folder/sources.list"
            return 0
        fi
    done
    say "no mirror in this machine's apt sources has the suite $suite: $(head -n 1 "$folder/try.log")"
    return 1
}

# private_apt_try FOLDER OPTIONS MIRROR SUITE: prints "yes" if that suite can be read and verified.
private_apt_try() {
    printf 'deb %s%s %s main\n' "$2" "$3" "$4" >"$1/try.list"
    if private_apt "$1" apt-get -q -o "Dir::Etc::SourceList=$1/try.list" \
        -o APT::Get::List-Cleanup=false -o APT::Update::Error-Mode=any update >"$1/try.last" 2>&1 &&
        ! grep -qE '^(E|Err|W: (GPG|Failed))' "$1/try.last"; then
        echo yes
    fi
    grep -E '^(E|W):' "$1/try.last" >>"$1/try.log" || true
}

# unpack ROOT DEB...: like dpkg -x, but into a root in which /lib, /bin, /sbin and /lib64 are links into
# /usr as on today's Debian (dpkg -x would replace the links by folders), without documentation.
unpack() {
    local root=$1 deb name link
    shift
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
    for name in bin sbin lib lib64; do
        [ -L "$root/$name" ] || ln -s "usr/$name" "$root/$name"
    done
    for deb in "$@"; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink --no-same-owner \
            --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' \
            --exclude='./usr/share/lintian' --exclude='./usr/share/bash-completion' \
            --exclude='./dev' --exclude='./var' --exclude='./etc'
    done
    # Absolute links would lead out of the root, into the system.
    while IFS= read -r -d '' link; do
        ln -sfn "$(realpath -m -s --relative-to="$(dirname "$link")" "$root$(readlink "$link")")" "$link"
    done < <(find "$root" -type l -lname '/*' -print0)
}
