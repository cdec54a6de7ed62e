package main

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	attrSize     = 0x00000001
	attrOwner    = 0x00000002
	attrMode     = 0x00000004
	attrTimes    = 0x00000008
	attrExtended = 0x80000000
)

// attributes are those of version 3: times in seconds, owners by number.
type attributes struct {
	flags, uid, gid, mode, atime, mtime uint32
	size                                uint64
}

func attributesOf(info *unix.Stat_t) attributes {
	return attributes{
		flags: attrSize | attrOwner | attrMode | attrTimes,
		size:  uint64(info.Size), uid: info.Uid, gid: info.Gid, mode: info.Mode,
		atime: uint32(info.Atim.Sec), mtime: uint32(info.Mtim.Sec),
	}
}

const modeBits = 0o7777

func (a attributes) modeOr(usual uint32) uint32 {
	if a.flags&attrMode != 0 {
		return a.mode & modeBits
	}
	return usual
}

// apply sets what is said, in OpenSSH's order, on a descriptor of any kind. `truncate` gives the file its size.
func (a attributes) apply(fd int, truncate func(size int64) error) error {
	if a.flags&attrSize != 0 {
		if err := truncate(int64(a.size)); err != nil {
			return err
		}
	}
	if a.flags&attrMode != 0 {
		if err := unix.Chmod(procPath(fd), a.mode&modeBits); err != nil {
			return err
		}
	}
	if a.flags&attrTimes != 0 {
		times := []unix.Timespec{{Sec: int64(a.atime)}, {Sec: int64(a.mtime)}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, procPath(fd), times, 0); err != nil {
			return err
		}
	}
	if a.flags&attrOwner != 0 {
		return unix.Fchownat(fd, "", int(a.uid), int(a.gid), unix.AT_EMPTY_PATH)
	}
	return nil
}

// longName is a line of `ls -l`, which clients show as it is.
func longName(name string, info *unix.Stat_t, owner func(uid uint32) string, now time.Time) string {
	changed := time.Unix(info.Mtim.Sec, 0)
	stamp := changed.Format("Jan _2 15:04")
	if age := now.Sub(changed); age > 182*24*time.Hour || age < -time.Hour {
		stamp = changed.Format("Jan _2  2006")
	}
	return fmt.Sprintf("%s %4d %-8s %-8s %8d %s %s", letters(info.Mode), info.Nlink,
		owner(info.Uid), strconv.FormatUint(uint64(info.Gid), 10), info.Size, stamp, name)
}

func letters(mode uint32) string {
	kinds := map[uint32]byte{
		unix.S_IFDIR: 'd', unix.S_IFLNK: 'l', unix.S_IFCHR: 'c', unix.S_IFBLK: 'b', unix.S_IFIFO: 'p', unix.S_IFSOCK: 's',
	}
	out := []byte("-rwxrwxrwx")
	if kind, special := kinds[mode&unix.S_IFMT]; special {
		out[0] = kind
	}
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			out[i+1] = '-'
		}
	}
	for _, bit := range []struct {
		mask  uint32
		place int
		set   byte
	}{{unix.S_ISUID, 3, 's'}, {unix.S_ISGID, 6, 's'}, {unix.S_ISVTX, 9, 't'}} {
		if mode&bit.mask != 0 {
			if out[bit.place] == '-' {
				bit.set -= 'a' - 'A'
			}
			out[bit.place] = bit.set
		}
	}
	return string(out)
}
