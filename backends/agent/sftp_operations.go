package main

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

type operation func(f *fileServer, id uint32, request *reader) error

var operations = map[byte]operation{
	fxpOpen:     (*fileServer).open,
	fxpClose:    (*fileServer).closeHandle,
	fxpRead:     (*fileServer).read,
	fxpWrite:    (*fileServer).write,
	fxpLstat:    onPath(func(f *fileServer, id uint32, path string) error { return f.statPath(id, path, true) }),
	fxpFstat:    (*fileServer).statHandle,
	fxpSetstat:  func(f *fileServer, id uint32, r *reader) error { return f.setPath(id, r, false) },
	fxpFsetstat: (*fileServer).setHandle,
	fxpOpendir:  onPath((*fileServer).openFolder),
	fxpReaddir:  (*fileServer).list,
	fxpRemove:   onPath(func(f *fileServer, id uint32, path string) error { return f.unlink(id, path, 0) }),
	fxpMkdir:    (*fileServer).makeFolder,
	fxpRmdir:    onPath(func(f *fileServer, id uint32, path string) error { return f.unlink(id, path, unix.AT_REMOVEDIR) }),
	fxpRealpath: onPath((*fileServer).realPath),
	fxpStat:     onPath(func(f *fileServer, id uint32, path string) error { return f.statPath(id, path, false) }),
	fxpRename:   onPaths(rename(unix.RENAME_NOREPLACE)), // version 3: never over another
	fxpReadlink: onPath((*fileServer).readLink),
	fxpSymlink:  (*fileServer).symlink,
}

type extension struct {
	name, version string
	operation     operation
}

var extensions = []extension{
	{"posix-rename@openssh.com", "1", onPaths(rename(0))},
	{"statvfs@openssh.com", "2", onPath((*fileServer).statFS)},
	{"fstatvfs@openssh.com", "2", (*fileServer).statFSHandle},
	{"hardlink@openssh.com", "1", onPaths((*fileServer).hardLink)},
	{"fsync@openssh.com", "1", (*fileServer).sync},
	{"lsetstat@openssh.com", "1", func(f *fileServer, id uint32, r *reader) error { return f.setPath(id, r, true) }},
	{"limits@openssh.com", "1", (*fileServer).limits},
	{"expand-path@openssh.com", "1", onPath((*fileServer).expandPath)},
}

// resolving is the gateway's alone: the canonical name of a path, and with a true byte also of its last link.
var resolving = extension{"resolve@doorward", "1", (*fileServer).resolve}

func (f *fileServer) extensions() []extension {
	if f.tree.judged {
		return append(extensions[:len(extensions):len(extensions)], resolving)
	}
	return extensions
}

func (f *fileServer) extension(name string) (operation, bool) {
	for _, one := range f.extensions() {
		if one.name == name {
			return one.operation, true
		}
	}
	return nil, false
}

func onPath(work func(f *fileServer, id uint32, path string) error) operation {
	return func(f *fileServer, id uint32, request *reader) error {
		if path := request.text(); !request.broken {
			return work(f, id, path)
		}
		return nil
	}
}

func onPaths(work func(f *fileServer, id uint32, from, to string) error) operation {
	return func(f *fileServer, id uint32, request *reader) error {
		if from, to := request.text(), request.text(); !request.broken {
			return work(f, id, from, to)
		}
		return nil
	}
}

// done answers with success unless there was an error.
func (f *fileServer) done(id uint32, err error) error {
	if err == nil {
		f.ok(id)
	}
	return err
}

const (
	openRead = 1 << iota
	openWrite
	openAppend
	openCreate
	openTruncate
	openExclusive
)

func (f *fileServer) open(id uint32, request *reader) error {
	path, wanted, attributes := request.text(), request.uint32(), request.attributes()
	if request.broken {
		return nil
	}
	if f.full() {
		return syscall.EMFILE
	}
	flags := unix.O_RDONLY
	switch wanted & (openRead | openWrite) {
	case openRead | openWrite:
		flags = unix.O_RDWR
	case openWrite:
		flags = unix.O_WRONLY
	}
	for asked, flag := range map[uint32]int{
		openAppend: unix.O_APPEND, openCreate: unix.O_CREAT, openTruncate: unix.O_TRUNC, openExclusive: unix.O_EXCL,
	} {
		if wanted&asked != 0 {
			flags |= flag
		}
	}
	fd, err := f.tree.open(path, flags, attributes.modeOr(0o666))
	if err != nil {
		return err
	}
	return f.keep(id, fd, false)
}

func (f *fileServer) openFolder(id uint32, path string) error {
	if f.full() {
		return syscall.EMFILE
	}
	fd, err := f.tree.open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return f.keep(id, fd, true)
}

func (f *fileServer) statPath(id uint32, path string, link bool) error {
	fd, err := f.tree.find(path, link)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.stat(id, fd)
}

func (f *fileServer) stat(id uint32, fd int) error {
	var info unix.Stat_t
	if err := unix.Fstat(fd, &info); err != nil {
		return err
	}
	f.beginReply(fxpAttrs, id)
	f.attributes(attributesOf(&info))
	return nil
}

func (f *fileServer) setPath(id uint32, request *reader, link bool) error {
	path, wanted := request.text(), request.attributes()
	if request.broken {
		return nil
	}
	fd, err := f.tree.find(path, link)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.done(id, wanted.apply(fd, func(size int64) error {
		if link {
			return unsupported
		}
		file, err := unix.Open(procPath(fd), unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(file)
		return unix.Ftruncate(file, size)
	}))
}

func (f *fileServer) makeFolder(id uint32, request *reader) error {
	path, attributes := request.text(), request.attributes()
	if request.broken {
		return nil
	}
	return f.done(id, f.tree.in(path, func(folder int, name string) error {
		return unix.Mkdirat(folder, name, attributes.modeOr(0o777))
	}))
}

func (f *fileServer) unlink(id uint32, path string, flags int) error {
	return f.done(id, f.tree.in(path, func(folder int, name string) error { return unix.Unlinkat(folder, name, flags) }))
}

func rename(flags uint) func(f *fileServer, id uint32, from, to string) error {
	return func(f *fileServer, id uint32, from, to string) error {
		return f.done(id, f.tree.inBoth(from, to, func(folder int, name string, toFolder int, toName string) error {
			return unix.Renameat2(folder, name, toFolder, toName, flags)
		}))
	}
}

func (f *fileServer) hardLink(id uint32, from, to string) error {
	return f.done(id, f.tree.inBoth(from, to, func(folder int, name string, toFolder int, toName string) error {
		return unix.Linkat(folder, name, toFolder, toName, 0)
	}))
}

// symlink takes its words in OpenSSH's order, which is the wrong one and everybody's: first what the link says.
func (f *fileServer) symlink(id uint32, request *reader) error {
	target, path := request.text(), request.text()
	if request.broken {
		return nil
	}
	return f.done(id, f.tree.in(path, func(folder int, name string) error { return unix.Symlinkat(target, folder, name) }))
}

func (f *fileServer) readLink(id uint32, path string) error {
	return f.tree.in(path, func(folder int, name string) error {
		buffer := make([]byte, unix.PathMax)
		length, err := unix.Readlinkat(folder, name, buffer)
		if err != nil {
			return err
		}
		f.name(id, string(buffer[:length]))
		return nil
	})
}

func (f *fileServer) realPath(id uint32, path string) error {
	if f.tree.judged { // what it may tell of places is the gateway's to say
		return unsupported
	}
	name, err := f.tree.name(path)
	if err == nil {
		f.name(id, canonical(name, true))
	}
	return err
}

// expandPath knows one home, whoever asks.
func (f *fileServer) expandPath(id uint32, path string) error {
	if rest, tilde := strings.CutPrefix(path, "~"); tilde {
		if rest != "" && rest[0] != '/' {
			return syscall.ENOENT
		}
		path = f.tree.start + rest
	}
	return f.realPath(id, path)
}

func (f *fileServer) resolve(id uint32, request *reader) error {
	path, last := request.text(), request.take(1)
	if request.broken {
		return nil
	}
	if path == "" {
		path = f.tree.start
	}
	name, err := f.tree.name(path)
	if err == nil {
		f.name(id, canonical(name, last[0] != 0))
	}
	return err
}

func (f *fileServer) limits(id uint32, _ *reader) error {
	f.beginReply(fxpExtendedReply, id)
	for _, limit := range []uint64{maxMessage, maxMessage - 1024, maxMessage - 1024, maxHandles} {
		f.uint64(limit)
	}
	return nil
}

func (f *fileServer) statFS(id uint32, path string) error {
	fd, err := f.tree.find(path, false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.fileSystem(id, fd)
}

func (f *fileServer) statFSHandle(id uint32, request *reader) error {
	_, open := f.number(request)
	if open == nil {
		return syscall.EBADF
	}
	return f.fileSystem(id, open.descriptor())
}

func (f *fileServer) fileSystem(id uint32, fd int) error {
	var info unix.Statfs_t
	if err := unix.Fstatfs(fd, &info); err != nil {
		return err
	}
	var flags uint64
	for has, say := range map[int64]uint64{unix.ST_RDONLY: 1, unix.ST_NOSUID: 2} {
		if int64(info.Flags)&has != 0 {
			flags |= say
		}
	}
	f.beginReply(fxpExtendedReply, id)
	for _, fact := range []uint64{
		uint64(info.Bsize), uint64(info.Frsize), info.Blocks, info.Bfree, info.Bavail, info.Files, info.Ffree, info.Ffree,
		0, flags, uint64(info.Namelen),
	} {
		f.uint64(fact)
	}
	return nil
}
