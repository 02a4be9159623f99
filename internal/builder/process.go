package builder

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	// grace is how long a program has to end by itself when it is asked to.
	grace = 5 * time.Second
	// maxLine bounds a line of the log; longer ones are broken.
	maxLine = 8 << 10
)

// Process is a program that was started, with everything that it starts.
type Process struct {
	command *exec.Cmd
	done    chan struct{}
	err     error // set before done is closed
	stop    sync.Once
}

// start runs a program. When it has ended, and what it started too, after are called.
func (b *Builders) start(by *Builder, name, packageID string, args []string, after ...func()) (*Process, error) {
	path, _ := by.program(name)
	c := exec.Command(path, args...)
	c.Env = b.environment(by)
	// A group of its own: signals reach what the program started, and those of the peer's terminal do not reach the program.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.Stdout, c.Stderr = writer, writer
	err = c.Start()
	writer.Close()
	if err != nil {
		reader.Close()
		return nil, err
	}
	p := &Process{command: c, done: make(chan struct{})}
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		copyLines(reader, b.cfg.Log.With("builder", by.Name, "command", name, "package", packageID))
	}()
	go func() {
		p.err = c.Wait()
		// Nobody is left to serve: what remains of the group goes with its leader.
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		// Who left the group may hold the output open; it is not waited for.
		_ = reader.SetReadDeadline(time.Now().Add(time.Second))
		<-logged
		reader.Close()
		for _, f := range after {
			f()
		}
		close(p.done)
	}()
	return p, nil
}

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err tells how the program ended, once Done is closed; nil: with exit code 0.
func (p *Process) Err() error { return p.err }

// Stop asks the program to end, insists after five seconds, and returns when it has ended.
func (p *Process) Stop() {
	p.stop.Do(func() {
		p.signal(syscall.SIGTERM)
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-p.done:
		case <-timer.C:
			p.signal(syscall.SIGKILL)
		}
	})
	<-p.done
}

func (p *Process) signal(s syscall.Signal) {
	select {
	case <-p.done: // the number may be another's by now
	default:
		_ = syscall.Kill(-p.command.Process.Pid, s)
	}
}

// Exit describes how a contract's process ended, as Fabric does.
func (p *Process) Exit() error {
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return errors.New("container exited with 0")
	case errors.As(p.err, &exit):
		return fmt.Errorf("container exited with %d (%s)", exit.ExitCode(), exit.ProcessState)
	}
	return fmt.Errorf("failed to wait on container exit: %w", p.err)
}

func copyLines(r io.Reader, log *slog.Logger) {
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, _, err := lines.ReadLine()
		if err != nil {
			return
		}
		if len(line) > 0 {
			log.Info("builder says", "output", string(line))
		}
	}
}
