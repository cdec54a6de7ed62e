package main

import (
	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// startSubsystem serves files from inside this process, so that an image needs neither a shell nor an sftp-server.
func (s *session) startSubsystem(payload []byte) (bool, func()) {
	var wire struct{ Name string }
	if ssh.Unmarshal(payload, &wire) != nil || wire.Name != "sftp" || s.started {
		return false, nil
	}
	folder := s.agent.settings.folder()
	server, err := sftp.NewServer(s.channel, sftp.WithServerWorkingDirectory(folder), sftp.WithAllocator())
	if err != nil {
		complain("sftp: %v", err)
		return false, nil
	}
	s.started = true
	return true, func() { s.serveFiles(server) }
}

// serveFiles says goodbye properly at the end of input; a client that breaks the protocol has had its channel closed.
func (s *session) serveFiles(server *sftp.Server) {
	if err := server.Serve(); err != nil {
		complain("sftp: %v", err)
	}
	_ = s.channel.CloseWrite()
	s.exitStatus(0)
	_ = s.channel.Close()
}
