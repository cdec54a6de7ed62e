package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// descendants lists the processes below root, from /proc; without a /proc it finds none.
func descendants(root int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed: no error is possible
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if parent, ok := parentOf(path); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	var found []int
	for next := children[root]; len(next) > 0; {
		pid := next[0]
		found = append(found, pid)
		next = append(next[1:], children[pid]...)
	}
	return found
}

// parentOf reads the fourth field of a stat file. The second, the program's name, may hold spaces and parentheses.
func parentOf(path string) (int, bool) {
	stat, err := os.ReadFile(path)
	if err != nil {
		return 0, false // the process has just gone
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return parent, err == nil
}
