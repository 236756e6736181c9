#!/bin/bash
# setup_helix.sh DIR: Helix 25.01 for tests/editor/test_editors.py, in DIR and nowhere else: NIGHTSCHOOL_HELIX=DIR.
# Debian 13 has it as `hx`, Debian 12 has not: the package and the libc that it wants are fetched by apt with lists of
# its own (18 MB) and unpacked, not installed. Needs a Debian whose mirror has trixie.
set -euo pipefail
[ -x "$1/hx" ] && exit 0
mkdir -p "$1"/{lists/partial,cache/archives/partial,sources,debs}; cd "$1"; here=$PWD
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian$')
printf 'Types: deb\nURIs: %s\nSuites: trixie\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
  "$mirror" >sources/trixie.sources
printf '%s;\n' 'Dir::Etc::sourcelist "/dev/null"' "Dir::Etc::sourceparts \"$here/sources\"" \
  "Dir::State::lists \"$here/lists\"" "Dir::Cache \"$here/cache\"" 'APT::Sandbox::User "root"' >apt.conf
export APT_CONFIG=$here/apt.conf
apt-get update -qq
(cd debs && apt-get download -qq hx libc6 libgcc-s1)
for package in debs/*.deb; do dpkg-deb -x "$package" root; done
rm -r lists cache debs
library=$here/root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo "$(uname -m)-linux-gnu")
cat >hx <<SCRIPT
#!/bin/sh
HELIX_RUNTIME=$here/root/usr/lib/hx/runtime exec $(ls "$library"/ld-linux*.so.*) --library-path $library $here/root/usr/lib/hx/hx "\$@"
SCRIPT
chmod +x hx
./hx --version
