package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Paths of sockets are opened as the gateway judged them: absolute, plain, and with no symbolic link on the way, so
// that nobody inside can make an allowed name mean another place.

func openPlain(path string, flags uint64) (*os.File, error) {
	if !validPath(path) {
		return nil, syscall.EINVAL
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags:   flags | unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// opened names what is open, to calls that take a path only.
func opened(file *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(file.Fd())) }

func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	file, err := openPlain(path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return (&net.Dialer{}).DialContext(ctx, "unix", opened(file))
}

// socketFile is a listener that knows its folder, and removes its name when it closes.
type socketFile struct {
	*net.UnixListener
	folder *os.File
	name   string
}

func (s *socketFile) Close() error {
	_ = unix.Unlinkat(int(s.folder.Fd()), s.name, 0)
	s.folder.Close()
	return s.UnixListener.Close()
}

// listenSocket makes a socket for the workspace's user alone, as sshd does; a file that is in the way stays.
func listenSocket(path string) (net.Listener, error) {
	if !validPath(path) || path == "/" {
		return nil, syscall.EINVAL
	}
	folder, err := openPlain(filepath.Dir(path), unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	within := filepath.Join(opened(folder), filepath.Base(path))
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: within, Net: "unix"})
	if err != nil {
		folder.Close()
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // it would unlink a path through a descriptor that may be another by then
	socket := &socketFile{listener, folder, filepath.Base(path)}
	if err := os.Chmod(within, 0o600); err != nil {
		socket.Close()
		return nil, err
	}
	return socket, nil
}
