package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"golang.org/x/crypto/ssh"
)

// The two names under which files are served. The gateway asks for the second where it judges every operation: there
// no name is followed, so that what was judged is what is opened.
const (
	plainFiles  = "sftp"
	judgedFiles = "sftp@doorward"
)

// maxMessage is OpenSSH's bound for one packet, and what `limits@openssh.com` tells.
const maxMessage = 256 * 1024

// startSubsystem serves files from inside this process, so that an image needs neither a shell nor an sftp-server.
func (s *session) startSubsystem(payload []byte) (bool, func()) {
	var wire struct{ Name string }
	if ssh.Unmarshal(payload, &wire) != nil || s.started || wire.Name != plainFiles && wire.Name != judgedFiles {
		return false, nil
	}
	s.started = true
	files := newFileServer(tree{
		start: s.agent.settings.folder(), user: s.agent.settings.userName(), judged: wire.Name == judgedFiles,
	})
	return true, func() { s.serveFiles(files) }
}

// serveFiles says goodbye properly at the end of input, and after a client that broke the protocol.
func (s *session) serveFiles(files *fileServer) {
	defer files.close()
	if err := files.serve(s.channel); err != nil {
		complain("sftp: %v", err)
	}
	_ = s.channel.CloseWrite()
	s.exitStatus(0)
	_ = s.channel.Close()
}

// fileServer is one conversation of SFTP version 3 (draft-ietf-secsh-filexfer-02), with OpenSSH's extensions. It
// answers one request after the other, as OpenSSH's does: whatever a client sends ahead happens in its order.
type fileServer struct {
	tree    tree
	handles map[uint32]*handle
	next    uint32
	buffer  []byte // of one answer
}

func newFileServer(tree tree) *fileServer {
	return &fileServer{tree: tree, handles: map[uint32]*handle{}}
}

func (f *fileServer) close() {
	for _, open := range f.handles {
		_ = open.close()
	}
}

var errBroken = errors.New("not a packet of the protocol")

// serve returns nil at the end of input.
func (f *fileServer) serve(channel io.ReadWriter) error {
	in := bufio.NewReaderSize(channel, 64*1024)
	out := bufio.NewWriterSize(channel, 64*1024)
	greeted := false
	for {
		packet, err := readPacket(in)
		if err == io.EOF {
			return out.Flush()
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		if !greeted {
			if packet[0] != fxpInit || len(packet) < 5 {
				return errBroken
			}
			greeted = true
			f.greet()
		} else if err := f.answer(packet); err != nil {
			return errors.Join(err, out.Flush())
		}
		if _, err := out.Write(f.sealed()); err != nil {
			return err
		}
		if in.Buffered() == 0 { // whoever sent many at once is answered many at once
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

func readPacket(in *bufio.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errBroken
		}
		return nil, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < 1 || length > maxMessage {
		return nil, errBroken
	}
	packet := make([]byte, length)
	if _, err := io.ReadFull(in, packet); err != nil {
		return nil, errBroken
	}
	return packet, nil
}

func (f *fileServer) greet() {
	f.begin(fxpVersion)
	f.uint32(3)
	for _, extension := range f.extensions() {
		f.text(extension.name)
		f.text(extension.version)
	}
}

// answer leaves the answer in the buffer. An error is a packet that makes no sense: nothing after it could.
func (f *fileServer) answer(packet []byte) error {
	request := &reader{rest: packet[1:]}
	id := request.uint32()
	operation, known := operations[packet[0]]
	if packet[0] == fxpExtended {
		operation, known = f.extension(request.text())
	}
	if request.broken {
		return errBroken
	}
	if !known {
		f.status(id, fxOpUnsupported, "unsupported")
		return nil
	}
	err := operation(f, id, request)
	if request.broken {
		return errBroken
	}
	if err != nil {
		f.fail(id, err)
	}
	return nil
}
