# packages.sh: what the shims opkg and apk share: a feed's index, the list of what is installed, unpacking and removing.
# shellcheck shell=busybox
# A feed is a folder with real .ipk files and the index Packages.gz, in the format of opkg's feeds (opkg's documentation;
# Debian control paragraphs). The apk shim uses the same: apk's own binary format is not spoken here.
# The caller sets STATUS (paragraphs of installed packages), INFO (folder of NAME.list and package scripts), LISTS.

# paragraph FILE NAME: that package's paragraph.
paragraph() {
	[ -f "$1" ] && awk -v RS= -v name="$2" '{ split($0, line, "\n"); if (line[1] == "Package: " name) { print; exit } }' "$1"
}
# field NAME: that field of the paragraph on stdin.
field() { sed -n "s/^$1: //p"; }

names() { field Package <"$1" 2>/dev/null; }
installed() { [ -n "$(paragraph "$STATUS" "$1")" ]; }
installed_version() { paragraph "$STATUS" "$1" | field Version; }

# available NAME: its paragraph from the feeds, with the feed's address as Feed.
available() {
	local list found

	for list in "$LISTS"/*; do
		[ -f "$list" ] || continue
		found=$(paragraph "$list" "$1")
		[ -z "$found" ] || { printf '%s\nFeed: %s\n' "$found" "$(feed_address "${list##*/}")"; return; }
	done
	return 1
}

depends() { field Depends | tr -d ' ' | tr , '\n'; }

# closure NAME: what has to be installed for it, dependencies first. Missing ones are printed as !NAME.
closure() {
	local dependency text

	case " $_seen " in *" $1 "*) return ;; esac
	_seen="$_seen $1"
	text=$(available "$1") || { echo "!$1"; return; }
	for dependency in $(echo "$text" | depends); do
		installed "$dependency" || closure "$dependency"
	done
	echo "$1"
}

# dependents NAME: installed packages that need it.
dependents() {
	awk -v RS= -v name="$1" '{
		package = ""; needs = ""
		n = split($0, line, "\n")
		for (i = 1; i <= n; i++) {
			if (line[i] ~ /^Package: /) package = substr(line[i], 10)
			if (line[i] ~ /^Depends: /) { needs = substr(line[i], 10); gsub(/ /, "", needs) }
		}
		if (index("," needs ",", "," name ",")) print package
	}' "$STATUS"
}

# fetch URL FILE: exit status as uclient-fetch has it (4 not reached, 8 refused by the server).
fetch() {
	local said

	case $1 in
	file:*) cp "${1#file://}" "$2" 2>/dev/null || return 1 ;;
	*)
		said=$(wget -q -T 5 -O "$2" "$1" 2>&1) && return 0
		case $said in *'server returned error'*) return 8 ;; *) return 4 ;; esac
		;;
	esac
}

# unpack ARCHIVE NAME: its files into place and its scripts into INFO; a changed conffile stays, the package's own is
# put beside it with $NEW_SUFFIX. Returns 1 when the disk is full.
unpack() {
	local tmp conffile sum script kept=''

	tmp=$(mktemp -d)
	mkdir "$tmp/control"
	tar -xzf "$1" -C "$tmp" && tar -xzf "$tmp/control.tar.gz" -C "$tmp/control"
	: >>"$tmp/control/conffiles"
	while read -r conffile; do
		sum=$(tar -xzOf "$tmp/data.tar.gz" ".$conffile" | md5sum | cut -d' ' -f1)
		echo "$conffile $sum" >>"$INFO/$2.conffiles"
		[ -f "$conffile" ] && [ "$(md5sum <"$conffile" | cut -d' ' -f1)" != "$sum" ] || continue
		kept="$kept $conffile"
		cp -p "$conffile" "$tmp/$(basename "$conffile")"
	done <"$tmp/control/conffiles"
	tar -tzf "$tmp/data.tar.gz" | sed -n 's,^\./,/,; /[^/]$/p' >"$INFO/$2.list"
	if ! tar -xzf "$tmp/data.tar.gz" -C / 2>"$tmp/error"; then
		sed 's/^tar: //' "$tmp/error" >&2
		xargs rm -f <"$INFO/$2.list"
		rm -rf "$tmp" "$INFO/$2".*
		return 1
	fi
	for conffile in $kept; do
		mv "$conffile" "$conffile$NEW_SUFFIX"
		cp -p "$tmp/$(basename "$conffile")" "$conffile"
		kept_conffile "$conffile"
	done
	for script in preinst postinst prerm postrm; do
		[ ! -f "$tmp/control/$script" ] || cp -p "$tmp/control/$script" "$INFO/$2.$script"
	done
	rm -rf "$tmp"
}

# record NAME AUTO: adds its paragraph to the installed ones; AUTO is yes for a package that only another one needs.
record() {
	{
		available "$1" | grep -E '^(Package|Version|Depends|Section|Architecture|Installed-Size|Description): '
		echo 'Status: install user installed'
		[ "$2" != yes ] || echo 'Auto-Installed: yes'
		[ ! -f "$INFO/$1.conffiles" ] || { echo Conffiles: && sed 's/^/ /' "$INFO/$1.conffiles"; }
		printf 'Installed-Time: %s\n\n' "$(date +%s)"
	} >>"$STATUS"
}

# erase NAME: runs prerm, removes its files and its paragraph; a changed conffile stays, kept_conffile is told of it.
erase() {
	local file sum

	[ ! -x "$INFO/$1.prerm" ] || "$INFO/$1.prerm" remove
	while read -r file; do
		sum=$(sed -n "s,^$file ,,p" "$INFO/$1.conffiles" 2>/dev/null)
		if [ -n "$sum" ] && [ -f "$file" ] && [ "$(md5sum <"$file" | cut -d' ' -f1)" != "$sum" ]; then
			kept_conffile "$file"
			continue
		fi
		rm -f "$file"
		rmdir -p "${file%/*}" 2>/dev/null
	done <"$INFO/$1.list"
	[ ! -x "$INFO/$1.postrm" ] || "$INFO/$1.postrm" remove
	rm -f "$INFO/$1".*
	awk -v RS= -v ORS='\n\n' -v name="$1" '{ split($0, line, "\n"); if (line[1] != "Package: " name) print }' \
		"$STATUS" >"$STATUS.new"
	mv "$STATUS.new" "$STATUS"
}

# orphan: a package that was installed for another one and that nothing needs any more.
orphan() {
	local name autos

	autos=$(awk -v RS= '/\nAuto-Installed: yes/ { print $2 }' "$STATUS")
	for name in $autos; do
		[ -n "$(dependents "$name")" ] || { echo "$name"; return; }
	done
	return 1
}
