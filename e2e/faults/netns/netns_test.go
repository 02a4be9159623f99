package netns_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/e2e/faults/netns"
)

// echoVariable makes the test program an echo server.
const echoVariable = "HANSA_FAULTS_ECHO"

func TestMain(m *testing.M) {
	if address := os.Getenv(echoVariable); address != "" {
		l, err := net.Listen("tcp", address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for {
			c, err := l.Accept()
			if err != nil {
				os.Exit(1)
			}
			go io.Copy(c, c)
		}
	}
	inside, status, err := netns.Isolate()
	switch {
	case err != nil:
		fmt.Fprintf(os.Stderr, "SKIPPED: this machine lets nobody make networks: %v\n", err)
		os.Exit(0)
	case !inside:
		os.Exit(status)
	}
	os.Exit(m.Run())
}

func TestLinks(t *testing.T) {
	links(t)
	links(t) // again, as the first have been taken away
}

func links(t *testing.T) {
	t.Helper()
	n := netns.New()
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	here, err := n.Add("here")
	if err != nil {
		t.Fatal(err)
	}
	there, err := n.Add("there")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort(there.IP, "7000")
	server := there.Command(self)
	server.Env = append(os.Environ(), echoVariable+"="+address)
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	var c net.Conn
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err = net.DialTimeout("tcp", address, time.Second); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer c.Close()
	// echo sends size bytes and reads them back.
	echo := func(size int, limit time.Duration) (time.Duration, error) {
		began := time.Now()
		c.SetDeadline(began.Add(limit))
		go c.Write(make([]byte, size))
		_, err := io.ReadFull(c, make([]byte, size))
		return time.Since(began), err
	}
	if _, err := echo(1<<20, 10*time.Second); err != nil {
		t.Fatalf("a good link: %v", err)
	}
	if got := n.Carried(here, there); got < 1<<20 || got > 2<<20 {
		t.Errorf("carried %d bytes", got)
	}

	n.Set(here, there, netns.Link{Delay: 50 * time.Millisecond})
	if took, err := echo(1, 10*time.Second); err != nil || took < 50*time.Millisecond {
		t.Errorf("a link of 50 ms takes %v: %v", took, err)
	}
	n.Set(there, here, netns.Link{Rate: 200_000})
	n.Set(here, there, netns.Link{})
	if took, err := echo(100_000, 20*time.Second); err != nil || took < 400*time.Millisecond {
		t.Errorf("100 kB over a link of 200 kB/s take %v: %v", took, err)
	}
	bad := netns.Link{Loss: 0.05, Duplicate: 0.05, Reorder: 0.1, Delay: 2 * time.Millisecond, Jitter: time.Millisecond}
	n.Seed(1)
	n.Set(there, here, bad)
	n.Set(here, there, bad)
	if _, err := echo(100_000, 30*time.Second); err != nil {
		t.Errorf("over %v: %v", bad, err)
	}

	// One direction is cut: what comes from there still arrives.
	n.Heal()
	n.Set(here, there, netns.Link{Cut: true})
	if _, err := echo(1, 300*time.Millisecond); err == nil {
		t.Error("a cut link carries")
	}
	n.Heal()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Errorf("a healed link: %v", err)
	}
}
