package main

import (
	"fmt"
	"os"

	"golang.org/x/term"
)

// screen is where the person looks on.
type screen struct {
	*os.File
	terminal bool
}

func newScreen(f *os.File) *screen { return &screen{f, term.IsTerminal(int(f.Fd()))} }

// title begins a part of the job.
func (s *screen) title(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if s.terminal {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	fmt.Fprintln(s, text)
}

func (s *screen) say(format string, args ...any) { fmt.Fprintf(s, "  "+format+"\n", args...) }
