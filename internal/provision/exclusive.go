package provision

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

// Exclusive lets one command at a time change what the network consists of. It waits for others, which tell is told of, and
// then reads the network again, since they have changed it. A process that ends, or is killed, releases the network.
func (n *Network) Exclusive(ctx context.Context, tell func(string)) (release func(), err error) {
	f, err := os.OpenFile(n.path("change.lock"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	for told := false; ; told = true {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			break
		}
		if !told {
			pid, _ := io.ReadAll(io.NewSectionReader(f, 0, 20)) // empty for a moment, if it has just begun
			tell(strings.TrimSpace("wait for another command that changes the network: process " + string(pid)))
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	fresh, err := Load(n.dir)
	if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt(fmt.Append(nil, os.Getpid()), 0)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	*n = *fresh
	return func() { f.Close() }, nil
}
