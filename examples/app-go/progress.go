package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// screen shows how far the work is: on a terminal a bar that moves, elsewhere one
// line for each step that is done.
type screen struct {
	out      io.Writer
	terminal int // file descriptor, or -1

	done atomic.Int64
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, terminal: -1}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.terminal = int(f.Fd())
	}
	return s
}

func (s *screen) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// step says that one more item of the phase is done.
func (s *screen) step() { s.done.Add(1) }

// phase shows a step of the job until the function it returns is called.
func (s *screen) phase(name string, total int, t *tally) (end func()) {
	s.done.Store(0)
	start := time.Now()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		if s.terminal < 0 {
			<-stop
			return
		}
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			fmt.Fprint(s.out, "\r"+s.line(name, total, time.Since(start), t)+"\x1b[K")
			select {
			case <-ticker.C:
			case <-stop:
				fmt.Fprint(s.out, "\r")
				return
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		fmt.Fprint(s.out, s.line(name, total, time.Since(start), t))
		if s.terminal >= 0 {
			fmt.Fprint(s.out, "\x1b[K")
		}
		fmt.Fprintln(s.out)
	}
}

// maxBar is the bar's width where there is room: besides it a line needs lineRest columns.
const (
	maxBar, minBar = 20, 6
	lineRest       = 73
)

func (s *screen) line(name string, total int, took time.Duration, t *tally) string {
	done := int(s.done.Load())
	rejected, p50, p99 := t.live()
	width, bar := 0, maxBar
	if s.terminal >= 0 {
		if columns, _, err := term.GetSize(s.terminal); err == nil && columns > 0 {
			width, bar = columns-1, min(max(columns-1-lineRest, minBar), maxBar)
		}
	}
	full := bar * done / total
	line := fmt.Sprintf("  %-11s %s%s %11s  %5.0f/s", name, strings.Repeat("█", full), strings.Repeat("░", bar-full),
		grouped(done)+"/"+grouped(total), float64(done)/max(took.Seconds(), 0.001))
	if name != "read back" {
		line += fmt.Sprintf("  p50 %.0f ms  p99 %.0f ms  rejected %d", milliseconds(p50), milliseconds(p99), rejected)
	}
	if runes := []rune(line); width > 0 && len(runes) > width {
		line = string(runes[:width])
	}
	return line
}
