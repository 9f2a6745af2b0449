#!/bin/sh
# Install Shotline from this bundle, or upgrade it, on a box that has never seen a network.
#
#   ./install.sh [--mode docker|venv] [--prefix FOLDER]
#   ./install.sh --back [--mode docker|venv] [--prefix FOLDER]     the version before, again
#
# Nothing that was kept is touched: no data folder, no volume, no secret, no line of .env but the
# image's. The version before stays beside the new one until somebody removes it.
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
mode='' prefix=/opt/shotline back=''

say() { printf '%s\n' "$*"; }

fail() {
    say "Error: $1" >&2
    say "Fix:   $2" >&2
    exit 2
}

fact() { sed -n "s/^$1=//p" "$here/BUNDLE"; }

has() { case " $(fact parts) " in *" $1 "*) true ;; *) false ;; esac }

while [ $# -gt 0 ]; do
    case $1 in
        --mode | --prefix)
            [ $# -ge 2 ] || fail "$1 needs a value." "See the head of $0."
            [ "$1" = --mode ] && mode=$2 || prefix=$2
            shift 2
            ;;
        --back) back=yes && shift ;;
        *) fail "There is no option $1." "See the head of $0." ;;
    esac
done

# --- what both ways share ---------------------------------------------------------------------

verify() {
    command -v sha256sum > /dev/null || fail "There is no sha256sum here." "Install coreutils."
    if ! told=$(cd "$here" && sha256sum -c SHA256SUMS 2>&1); then
        say "$told" | grep -v ': OK$' >&2
        fail "The bundle is damaged or incomplete; nothing was installed." \
            "Copy it again, and compare the sha256 of the archive with what 'shotline bundle' said."
    fi
    say "Verified $(grep -c . "$here/SHA256SUMS") files."
}

copy_backbones() { # to the folder $1; what is there stays
    has backbones || return 0
    mkdir -p "$1"
    for folder in "$here"/backbones/*/; do
        name=$(basename "$folder")
        if [ -e "$1/$name" ]; then
            say "The backbone $name is in $1 already; it was left as it is."
        else
            rm -rf "$1/.incoming"
            cp -R "$folder" "$1/.incoming"
            mv "$1/.incoming" "$1/$name"
            say "Copied the backbone $name into $1."
        fi
    done
}

make_prefix() {
    mkdir -p "$prefix" 2> /dev/null && [ -w "$prefix" ] ||
        fail "$prefix cannot be written." "Run this as root, or name another folder with --prefix."
    prefix=$(cd "$prefix" && pwd -P)
}

point() { # the link $1 to $2, in one step
    ln -s "$2" "$1.new"
    mv -T "$1.new" "$1"
}

# --- a virtual environment --------------------------------------------------------------------

find_python() {
    needed=$(fact python)
    for python in "${SHOTLINE_PYTHON:-}" "python$needed" python3; do
        [ -n "$python" ] || continue
        found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) || continue
        if [ "$found" = "$needed" ]; then
            say "$python"
            return
        fi
    done
    fail "The bundle was made for Python $needed, and there is none here." \
        "Install python$needed and python$needed-venv, or name it in SHOTLINE_PYTHON."
}

install_venv() {
    has wheels || fail "The bundle holds no wheels." "Make it without '--without wheels'."
    machine=$(fact machine)
    [ "$machine" = "$(uname -m)" ] ||
        fail "The bundle is for $machine; this is $(uname -m)." "Make one on such a machine."
    python=$(find_python) || exit 2
    make_prefix
    sum=$(sha256sum "$here/SHA256SUMS" | cut -c 1-8)
    name=$(fact version)-$sum target=$prefix/versions/$(fact version)-$sum
    if [ -e "$target/.complete" ]; then
        say "This bundle is installed in $target already."
    else
        rm -rf "$target"
        mkdir -p "$prefix/versions"
        "$python" -m venv "$target" || {
            rm -rf "$target"
            fail "$python cannot make a virtual environment." "Install python$(fact python)-venv."
        }
        # Whatever configures pip on this box speaks of indexes that cannot be reached.
        env PIP_CONFIG_FILE=/dev/null "$target/bin/python" -m pip --isolated --quiet \
            --disable-pip-version-check install --no-index --find-links "$here/wheels" \
            --require-hashes --requirement "$here/requirements.txt" || {
            rm -rf "$target"
            fail "pip could not install the wheels; what runs here was not touched." "See above."
        }
        "$target/bin/shotline" --version > /dev/null || {
            rm -rf "$target"
            fail "What was installed does not start; what runs here was not touched." "See above."
        }
        : > "$target/.complete"
    fi
    old=$(readlink "$prefix/current" 2> /dev/null || true)
    if [ -n "$old" ] && [ "$old" != "versions/$name" ]; then
        point "$prefix/previous" "$old"
    fi
    point "$prefix/current" "versions/$name"
    copy_backbones "$prefix/data/backbones"
    say "Shotline $(fact version) is in $prefix/current; nothing was started."
    if [ -n "$old" ] && [ "$old" != "versions/$name" ]; then
        say "The version before is $prefix/previous; './install.sh --back' goes back to it."
        say "Next: take a backup, stop what runs, and start it again:"
    else
        say "Next:"
    fi
    say "  $prefix/current/bin/shotline up --data $prefix/data"
    say "  $prefix/current/bin/shotline doctor --data $prefix/data"
}

back_venv() {
    make_prefix
    old=$(readlink "$prefix/current" 2> /dev/null || true)
    new=$(readlink "$prefix/previous" 2> /dev/null || true)
    [ -n "$new" ] && [ -e "$prefix/$new/.complete" ] ||
        fail "There is no version before in $prefix." "Install the older bundle."
    point "$prefix/current" "$new"
    point "$prefix/previous" "$old"
    say "$prefix/current is $new again. Restore the backup that was taken before the upgrade: a"
    say "database goes forward only. Then start the service again."
}

# --- containers -------------------------------------------------------------------------------

files='docker-compose.yml .env.example constraints.txt deploy/make-secrets'

docker_answers() { docker info > /dev/null 2>&1; }

keep_before() { # the files of the version that is there, with its .env
    rm -rf "$prefix/before.new"
    mkdir -p "$prefix/before.new/deploy"
    for file in $files .env; do
        [ ! -e "$prefix/$file" ] || cp -p "$prefix/$file" "$prefix/before.new/$file"
    done
    rm -rf "$prefix/before"
    mv "$prefix/before.new" "$prefix/before"
}

set_image() { # the line in .env; all others stay
    image=$(fact image)
    if grep -q '^SHOTLINE_IMAGE=' "$prefix/.env"; then
        sed "s|^SHOTLINE_IMAGE=.*|SHOTLINE_IMAGE=$image|" "$prefix/.env" > "$prefix/.env.new"
    else
        { cat "$prefix/.env" && say "SHOTLINE_IMAGE=$image"; } > "$prefix/.env.new"
    fi
    chmod 600 "$prefix/.env.new"
    mv "$prefix/.env.new" "$prefix/.env"
}

install_docker() {
    has images || fail "The bundle holds no images." "Use --mode venv, or make it with the images."
    docker_answers || fail "Docker does not answer." "Start it; or use --mode venv."
    make_prefix
    docker load --input "$here/images/images.tar"
    old=''
    if [ -e "$prefix/.env" ]; then
        old=$(sed -n 's/^SHOTLINE_IMAGE=//p' "$prefix/.env")
        if [ "$old" != "$(fact image)" ]; then keep_before; fi
    fi
    mkdir -p "$prefix/deploy"
    for file in $files; do
        cp "$here/$file" "$prefix/$file"
    done
    chmod 755 "$prefix/deploy/make-secrets"
    [ -e "$prefix/.env" ] || cp "$here/.env.example" "$prefix/.env"
    set_image
    [ -e "$prefix/deploy/secrets/postgres_password" ] || "$prefix/deploy/make-secrets"
    copy_backbones "$prefix/deploy/backbones"
    say "The images are loaded and $prefix holds the files of Shotline $(fact version);"
    say "nothing was started."
    if [ -n "$old" ] && [ "$old" != "$(fact image)" ]; then
        say "The image before, $old, stays; './install.sh --back' goes back to it."
        say "Next: take a backup, then"
    else
        say "Next: look through $prefix/.env, then"
    fi
    say "  cd $prefix && docker compose up --detach"
}

back_docker() {
    make_prefix
    [ -e "$prefix/before/.env" ] ||
        fail "There is no version before in $prefix." "Name its image in $prefix/.env."
    mv "$prefix/before" "$prefix/again"
    keep_before
    for file in $files .env; do
        [ ! -e "$prefix/again/$file" ] || cp -p "$prefix/again/$file" "$prefix/$file"
    done
    rm -rf "$prefix/again"
    say "$prefix names $(sed -n 's/^SHOTLINE_IMAGE=//p' "$prefix/.env") again. Restore the backup that"
    say "was taken before the upgrade: a database goes forward only. Then"
    say "  cd $prefix && docker compose up --detach"
}

# --- which way --------------------------------------------------------------------------------

if [ -z "$mode" ]; then
    mode=venv
    if [ -n "$back" ]; then
        if [ -e "$prefix/docker-compose.yml" ]; then mode=docker; fi
    elif has images && command -v docker > /dev/null && docker_answers; then
        mode=docker
    fi
fi
case $mode in
    docker | venv) ;;
    *) fail "The mode $mode is neither docker nor venv." "Give one of the two." ;;
esac
if [ -n "$back" ]; then
    "back_$mode"
else
    verify
    "install_$mode"
fi
