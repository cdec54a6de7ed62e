package main

import (
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var usualShells = []string{"/bin/bash", "/bin/sh"}

// environ is a program's environment, lowest to highest: the container's, the person's requests, policy's, and then
// what describes the session itself. A second setup can name a variable that was requested before, so policy's word
// is laid over the requests here too and not only where they are refused.
func (s *settings) environ(requested map[string]string, tty *tty, callbacks map[string]string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	env := map[string]string{"PATH": defaultPath}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	maps.Copy(env, requested)
	maps.Copy(env, s.env)
	for name, value := range map[string]string{
		"HOME": s.home, "USER": s.user, "LOGNAME": s.user, "SHELL": s.shellPath(),
	} {
		if value != "" {
			env[name] = value
		}
	}
	delete(env, "SSH_TTY")
	if tty != nil {
		env["SSH_TTY"], env["TERM"] = tty.name, tty.term
	}
	maps.Copy(env, callbacks)
	var list []string
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// reserves says whether policy has set this variable, so that nobody else may.
func (s *settings) reserves(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, set := s.env[name]
	return set
}

// findShell returns the shell that commands run in, or "" where the image has none.
func (s *settings) findShell() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shellPath()
}

// shellPath takes policy's word as it is, present or not: starting another shell than the one that policy names would
// be a decision of ours.
func (s *settings) shellPath() string {
	if s.shell != "" {
		return s.shell
	}
	named, set := s.env["SHELL"]
	if !set {
		named = os.Getenv("SHELL")
	}
	for _, path := range append([]string{named}, usualShells...) {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	return ""
}

// folder is where programs start: at home, where there is one that can be entered.
func (s *settings) folder() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	home := s.home
	if home == "" {
		home = os.Getenv("HOME")
	}
	if info, err := os.Stat(home); err == nil && info.IsDir() && unix.Access(home, unix.X_OK) == nil {
		return home
	}
	return "/"
}

func (s *settings) userName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.user
}
