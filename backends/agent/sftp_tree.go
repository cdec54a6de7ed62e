package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// tree is how names become files. A judged tree follows nothing: every name is absolute, clean and canonical, for the
// gateway had it resolved and judged before, and a link that stands anywhere in it now was put there since.
type tree struct {
	start  string // where relative names begin
	user   string // what our own number is called
	judged bool
}

// name is a path as the system shall see it.
func (t tree) name(path string) (string, error) {
	switch {
	case strings.ContainsRune(path, 0):
		return "", syscall.EINVAL
	case t.judged && (!filepath.IsAbs(path) || filepath.Clean(path) != path):
		return "", syscall.EINVAL
	case !filepath.IsAbs(path):
		return t.start + "/" + path, nil
	}
	return path, nil
}

// open is the one way to a file. It never waits, for the writer of a pipe say, and gives no terminal.
func (t tree) open(path string, flags int, mode uint32) (int, error) {
	name, err := t.name(path)
	if err != nil {
		return -1, err
	}
	how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC)}
	if flags&unix.O_PATH == 0 {
		how.Flags |= unix.O_NOCTTY | unix.O_NONBLOCK
	}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(mode)
	}
	if t.judged {
		how.Flags |= unix.O_NOFOLLOW
		how.Resolve = unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS
	}
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, name, &how)
		if err == unix.EINTR || err == unix.EAGAIN && flags&unix.O_PATH != 0 {
			continue
		}
		if err == unix.ENOSYS && !t.judged { // without openat2 (gVisor) only what was judged has to be refused
			fd, err = unix.Openat(unix.AT_FDCWD, name, int(how.Flags), uint32(how.Mode))
		}
		return fd, err
	}
}

// find gives a descriptor that only names a file, whatever its mode: the file itself, or with `link` a link as such.
func (t tree) find(path string, link bool) (int, error) {
	flags := unix.O_PATH
	if link {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := t.open(path, flags, 0)
	if err != nil || link || !t.judged {
		return fd, err
	}
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil || info.Mode&unix.S_IFMT == unix.S_IFLNK {
		_ = unix.Close(fd)
		return -1, unix.ELOOP // judged as a file, and now a link
	}
	return fd, nil
}

// in runs work on the folder that holds the path's last name, which no work follows.
func (t tree) in(path string, work func(folder int, name string) error) error {
	name, err := t.name(path)
	if err != nil {
		return err
	}
	if !t.judged {
		return work(unix.AT_FDCWD, name)
	}
	if name == "/" {
		return syscall.EBUSY
	}
	folder, err := t.open(filepath.Dir(name), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(folder)
	return work(folder, filepath.Base(name))
}

// inBoth is `in` for two.
func (t tree) inBoth(from, to string, work func(folder int, name string, toFolder int, toName string) error) error {
	return t.in(from, func(folder int, name string) error {
		return t.in(to, func(toFolder int, toName string) error { return work(folder, name, toFolder, toName) })
	})
}

// maxLinks is how many links that lead nowhere are read before we give up, as the kernel does.
const maxLinks = 40

// canonical is the name without links of what a path leads to; with `last` false its last name stands for itself.
// What does not exist keeps its name, below the canonical name of what does: there is an answer always, so that a
// refusal by policy cannot be told from a file that is not there.
func canonical(path string, last bool) string { return canonicalWithin(path, last, maxLinks) }

func canonicalWithin(path string, last bool, links int) string {
	path = filepath.Clean("/" + path)
	if path == "/" {
		return path
	}
	if last {
		if name := nameOf(path); name != "" {
			return name
		}
	}
	name := filepath.Join(canonicalWithin(filepath.Dir(path), true, links), filepath.Base(path))
	if last && links > 0 {
		if to := linkAt(unix.AT_FDCWD, name); to != "" {
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(name), to)
			}
			return canonicalWithin(to, true, links-1)
		}
	}
	return name
}

// nameOf asks the kernel for the name of what a path leads to; "" where it has none that leads there too: a pipe, what is
// out of reach, or what was removed where it came from (a file that is bound to its place is called "... (deleted)").
func nameOf(path string) string {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	name := linkAt(unix.AT_FDCWD, procPath(fd))
	var meant, named unix.Stat_t
	if !filepath.IsAbs(name) || unix.Fstat(fd, &meant) != nil || unix.Lstat(name, &named) != nil {
		return ""
	}
	if meant.Dev != named.Dev || meant.Ino != named.Ino {
		return ""
	}
	return name
}

func linkAt(folder int, name string) string {
	buffer := make([]byte, unix.PathMax+1)
	length, err := unix.Readlinkat(folder, name, buffer)
	if err != nil || length > unix.PathMax {
		return ""
	}
	return string(buffer[:length])
}

// procPath names what a descriptor stands for, also where the call at hand takes no descriptor of O_PATH.
func procPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
