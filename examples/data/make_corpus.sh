#!/bin/sh
# Rebuilds austen.txt bit for bit from the Debian package r-cran-janeaustenr 1.0.0-1.
#
#   examples/data/make_corpus.sh [package.deb] > austen.txt
#
# Without an argument the package is fetched with "apt-get download"; nothing is installed. Only
# essential Debian packages are used (dpkg, tar, gzip, coreutils, perl-base); R is not needed.
set -eu

deb_sha256=df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95
text_sha256=500f6785be8fb16137e88261a5df2562a0c37b34a1f4243c23845e4a3a8cb4d8

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ $# -gt 0 ]; then
  cp "$1" "$work/package.deb"
else
  (cd "$work" && apt-get -q download r-cran-janeaustenr=1.0.0-1 >&2 && mv ./*.deb package.deb)
fi
echo "$deb_sha256  $work/package.deb" | sha256sum --check --quiet - >&2

dpkg-deb --fsys-tarfile "$work/package.deb" |
  tar -xO ./usr/lib/R/site-library/janeaustenr/data/Rdata.rdb > "$work/rdb"

# Prints one novel. The database is a row of zlib streams, each behind a 4-byte length; the offsets
# are those of Rdata.rdx. gzip inflates a zlib stream once its 2-byte header is replaced by a gzip
# header; it then misses its own trailer and says so, hence "|| true" and the checksum at the end.
novel() {
  offset=$1
  length=$2
  {
    printf '\037\213\010\0\0\0\0\0\0\003'
    tail -c "+$((offset + 7))" "$work/rdb" | head -c "$((length - 6))"
  } | { gzip -dc 2> /dev/null || true; } | perl -0777 -ne "$unpack_lines" | perl -00 -ne "$unwrap"
}

# R serialisation, version 3, XDR: a character vector (type 16) of strings (flags, length, bytes).
unpack_lines='
  my $at = index($_, "\0\0\0\x10", 14);
  my $count = unpack("N", substr($_, $at + 4, 4));
  $at += 8;
  for my $line (1 .. $count) {
    my $length = unpack("N", substr($_, $at + 4, 4));
    print substr($_, $at + 8, $length), "\n";
    $at += 8 + $length;
  }'

# One line per paragraph, one blank line between paragraphs; rows of asterisks and the underscores
# of italics go. A line that ends in a hyphen or dash joins the next one without a space.
unwrap='
  next if /^[\s*]*$/;
  tr/_//d;
  s/-\n\s*(?=\S)/-/g;
  s/\s+/ /g;
  s/^ | $//g;
  print $paragraphs++ ? "\n$_\n" : "$_\n";'

{
  novel 878612 185129   # Persuasion (1818)
  echo
  novel 1063742 271036  # Pride and Prejudice (1813): the held-out tail is its last chapters
} > "$work/austen.txt"

sha256sum < "$work/austen.txt" >&2
echo "$text_sha256  $work/austen.txt" | sha256sum --check --quiet - >&2
cat "$work/austen.txt"
