package main

import (
	"encoding/binary"
	"io"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxHandles bounds what one conversation may hold open.
const maxHandles = 1024

// handle is an open file, or with `folder` an open directory.
type handle struct {
	fd     int
	folder *os.File
}

func (h *handle) close() error {
	if h.folder != nil {
		return h.folder.Close()
	}
	return unix.Close(h.fd)
}

// keep answers with a handle for an open descriptor.
func (f *fileServer) keep(id uint32, fd int, folder bool) error {
	open := &handle{fd: fd}
	if folder {
		open.folder = os.NewFile(uintptr(fd), "folder")
	}
	f.next++
	f.handles[f.next] = open
	f.beginReply(fxpHandle, id)
	f.uint32(4)
	f.uint32(f.next)
	return nil
}

func (f *fileServer) full() bool { return len(f.handles) >= maxHandles }

func (f *fileServer) number(request *reader) (uint32, *handle) {
	name := request.bytes()
	if len(name) != 4 {
		return 0, nil
	}
	number := binary.BigEndian.Uint32(name)
	return number, f.handles[number]
}

// file is the handle's open file; EBADF where there is none.
func (f *fileServer) file(request *reader) (*handle, error) {
	_, open := f.number(request)
	if open == nil || open.folder != nil {
		return nil, syscall.EBADF
	}
	return open, nil
}

func (f *fileServer) closeHandle(id uint32, request *reader) error {
	number, open := f.number(request)
	if open == nil {
		return syscall.EBADF
	}
	delete(f.handles, number)
	if err := open.close(); err != nil {
		return err
	}
	f.ok(id)
	return nil
}

func (f *fileServer) read(id uint32, request *reader) error {
	open, err := f.file(request)
	offset, length := request.uint64(), request.uint32()
	if err != nil {
		return err
	}
	const head = 13 // length, type, id, and the length of the data
	length = min(length, maxMessage-head)
	f.beginReply(fxpData, id)
	f.uint32(0)
	f.buffer = slices.Grow(f.buffer, int(length))[:head+int(length)]
	count, err := unix.Pread(open.fd, f.buffer[head:], int64(offset))
	switch {
	case err != nil:
		return err
	case count == 0 && length > 0:
		return io.EOF
	}
	f.buffer = f.buffer[:head+count]
	binary.BigEndian.PutUint32(f.buffer[head-4:], uint32(count))
	return nil
}

func (f *fileServer) write(id uint32, request *reader) error {
	open, err := f.file(request)
	offset, data := request.uint64(), request.bytes()
	if err != nil {
		return err
	}
	for len(data) > 0 {
		count, err := unix.Pwrite(open.fd, data, int64(offset))
		if err != nil {
			return err
		}
		data, offset = data[count:], offset+uint64(count)
	}
	f.ok(id)
	return nil
}

func (f *fileServer) sync(id uint32, request *reader) error {
	open, err := f.file(request)
	if err == nil {
		err = unix.Fsync(open.fd)
	}
	if err == nil {
		f.ok(id)
	}
	return err
}

func (f *fileServer) statHandle(id uint32, request *reader) error {
	_, open := f.number(request)
	if open == nil {
		return syscall.EBADF
	}
	return f.stat(id, open.descriptor())
}

func (h *handle) descriptor() int {
	if h.folder != nil {
		return int(h.folder.Fd())
	}
	return h.fd
}

func (f *fileServer) setHandle(id uint32, request *reader) error {
	_, open := f.number(request)
	wanted := request.attributes()
	if open == nil {
		return syscall.EBADF
	}
	fd := open.descriptor()
	err := wanted.apply(fd, func(size int64) error { return unix.Ftruncate(fd, size) })
	if err == nil {
		f.ok(id)
	}
	return err
}

const namesAtOnce = 100

// list answers with the next names of a directory, without "." and "..".
func (f *fileServer) list(id uint32, request *reader) error {
	_, open := f.number(request)
	if open == nil || open.folder == nil {
		return syscall.EBADF
	}
	names, err := open.folder.Readdirnames(namesAtOnce)
	if err != nil {
		return err // io.EOF at the end
	}
	f.beginReply(fxpName, id)
	f.uint32(uint32(len(names)))
	now := time.Now()
	for _, name := range names {
		var info unix.Stat_t
		f.text(name)
		if unix.Fstatat(int(open.folder.Fd()), name, &info, unix.AT_SYMLINK_NOFOLLOW) != nil {
			f.text(name) // gone meanwhile
			f.attributes(attributes{})
			continue
		}
		f.text(longName(name, &info, f.owner, now))
		f.attributes(attributesOf(&info))
	}
	return nil
}

func (f *fileServer) owner(uid uint32) string {
	if int(uid) == os.Getuid() && f.tree.user != "" {
		return f.tree.user
	}
	return strconv.FormatUint(uint64(uid), 10)
}
