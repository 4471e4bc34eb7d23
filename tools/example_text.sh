#!/usr/bin/env bash
# get_text DIR: real English text for quickstart and comparison, DIR/text.txt, from a Debian package that is unpacked, not
# installed. Sourced after setup.sh; the caller has a function explain.
set -euo pipefail

download_dictionary() { (cd "$1/package" && apt-get download -q -o APT::Sandbox::User=root dict-gcide); }

get_text() {
    local work=$1
    if [[ -s $work/text.txt ]]; then
        explain "already there: $work/text.txt"
        return
    fi
    mkdir -p "$work/package"
    download_dictionary "$work" || { as_root apt-get update -q && download_dictionary "$work"; } ||
        die "cannot download dict-gcide (the text of the examples); put plain English text into $work/text.txt and start again"
    dpkg-deb -x "$work"/package/dict-gcide_*.deb "$work/package"
    python3 tools/quickstart_text.py "$work/package/usr/share/dictd/gcide.dict.dz" "$work/text.txt.partial"
    mv "$work/text.txt.partial" "$work/text.txt"
    rm -rf "$work/package"
    explain "Nothing was installed: the package was unpacked, its markup stripped. A paragraph of it:" \
        "  $(awk 'length > 60 && length < 110 && ++n == 100 { print; exit }' "$work/text.txt")" \
        "Your own text does as well: plain text files or JSONL with a key \"text\"."
}
