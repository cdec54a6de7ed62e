package main

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"syscall"
)

// Packet types and status codes of draft-ietf-secsh-filexfer-02, sections 3 and 7.
const (
	fxpInit = 1 + iota
	fxpVersion
	fxpOpen
	fxpClose
	fxpRead
	fxpWrite
	fxpLstat
	fxpFstat
	fxpSetstat
	fxpFsetstat
	fxpOpendir
	fxpReaddir
	fxpRemove
	fxpMkdir
	fxpRmdir
	fxpRealpath
	fxpStat
	fxpRename
	fxpReadlink
	fxpSymlink
)

const (
	fxpStatus = 101 + iota
	fxpHandle
	fxpData
	fxpName
	fxpAttrs
)

const (
	fxpExtended      = 200
	fxpExtendedReply = 201
)

const (
	fxOK = iota
	fxEOF
	fxNoSuchFile
	fxPermissionDenied
	fxFailure
	fxBadMessage
	_
	_
	fxOpUnsupported
)

// reader takes a packet apart. After something was missing it gives zeroes, and `broken` says so.
type reader struct {
	rest   []byte
	broken bool
}

func (r *reader) take(length int) []byte {
	if r.broken || length < 0 || length > len(r.rest) {
		r.broken = true
		return nil
	}
	taken := r.rest[:length]
	r.rest = r.rest[length:]
	return taken
}

func (r *reader) uint32() uint32 {
	if four := r.take(4); four != nil {
		return binary.BigEndian.Uint32(four)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if eight := r.take(8); eight != nil {
		return binary.BigEndian.Uint64(eight)
	}
	return 0
}

func (r *reader) bytes() []byte { return r.take(int(r.uint32())) }

func (r *reader) text() string { return string(r.bytes()) }

func (r *reader) attributes() attributes {
	a := attributes{flags: r.uint32()}
	if a.flags&attrSize != 0 {
		a.size = r.uint64()
	}
	if a.flags&attrOwner != 0 {
		a.uid, a.gid = r.uint32(), r.uint32()
	}
	if a.flags&attrMode != 0 {
		a.mode = r.uint32()
	}
	if a.flags&attrTimes != 0 {
		a.atime, a.mtime = r.uint32(), r.uint32()
	}
	if a.flags&attrExtended != 0 {
		for range r.uint32() {
			if r.bytes(); r.broken {
				break
			}
			r.bytes()
		}
	}
	return a
}

// begin starts the one answer that is being built; sealed ends it.
func (f *fileServer) begin(kind byte) { f.buffer = append(f.buffer[:0], 0, 0, 0, 0, kind) }

func (f *fileServer) beginReply(kind byte, id uint32) {
	f.begin(kind)
	f.uint32(id)
}

func (f *fileServer) sealed() []byte {
	binary.BigEndian.PutUint32(f.buffer, uint32(len(f.buffer)-4))
	return f.buffer
}

func (f *fileServer) uint32(value uint32) { f.buffer = binary.BigEndian.AppendUint32(f.buffer, value) }
func (f *fileServer) uint64(value uint64) { f.buffer = binary.BigEndian.AppendUint64(f.buffer, value) }

func (f *fileServer) text(value string) {
	f.uint32(uint32(len(value)))
	f.buffer = append(f.buffer, value...)
}

func (f *fileServer) attributes(a attributes) {
	f.uint32(a.flags)
	if a.flags&attrSize != 0 {
		f.uint64(a.size)
	}
	if a.flags&attrOwner != 0 {
		f.uint32(a.uid)
		f.uint32(a.gid)
	}
	if a.flags&attrMode != 0 {
		f.uint32(a.mode)
	}
	if a.flags&attrTimes != 0 {
		f.uint32(a.atime)
		f.uint32(a.mtime)
	}
}

func (f *fileServer) status(id, code uint32, message string) {
	f.beginReply(fxpStatus, id)
	f.uint32(code)
	f.text(message)
	f.text("")
}

func (f *fileServer) ok(id uint32) { f.status(id, fxOK, "") }

// name answers with one name alone.
func (f *fileServer) name(id uint32, name string) {
	f.beginReply(fxpName, id)
	f.uint32(1)
	f.text(name)
	f.text(name)
	f.attributes(attributes{})
}

// unsupported is an operation that there is, in a form that there is not.
var unsupported = errors.New("unsupported")

func (f *fileServer) fail(id uint32, err error) {
	code := uint32(fxFailure)
	switch {
	case errors.Is(err, io.EOF):
		code = fxEOF
	case errors.Is(err, fs.ErrNotExist):
		code = fxNoSuchFile
	case errors.Is(err, fs.ErrPermission):
		code = fxPermissionDenied
	case errors.Is(err, unsupported), errors.Is(err, syscall.ENOSYS):
		code = fxOpUnsupported
	}
	f.status(id, code, reason(err))
}
