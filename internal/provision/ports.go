package provision

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// portsOfNode is how many ports a node uses: its service and the two beside it.
// portStride is how far apart nodes are where a person chose the first port.
const (
	portsOfNode = 3
	portStride  = 10
)

// ports hands out the ports of one node after the other.
type ports struct{ base, stride int }

func (p *ports) next() [portsOfNode]int {
	three := [portsOfNode]int{p.base, p.base + 1, p.base + 2}
	p.base += p.stride
	return three
}

// freePort is the lowest port after those of the nodes that nobody uses: for a contract.
func (n *Network) freePort() (int, error) {
	ports, err := n.freePorts(1)
	if err != nil {
		return 0, err
	}
	return ports[0], nil
}

// freePorts are the lowest ports after those of the nodes that nobody uses.
func (n *Network) freePorts(count int) (free []int, err error) {
	used, first := map[int]bool{}, 0
	for _, o := range n.Orderers {
		first = max(first, o.Port, o.Admin, o.Operations)
	}
	for _, m := range n.Members {
		first = max(first, m.CA.Port, m.CA.Operations)
		for _, p := range m.Peers {
			first = max(first, p.Port, p.Chaincode, p.Operations)
		}
	}
	for _, c := range n.Contracts {
		used[c.Port] = true
	}
	for port := first + 1; port <= 65535; port++ {
		if !used[port] && canListen(port) {
			if free = append(free, port); len(free) == count {
				return free, nil
			}
		}
	}
	return nil, fmt.Errorf("there is no free port between %d and 65535", first+1)
}

func canListen(port int) bool {
	l, err := net.Listen("tcp", address(port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// Networks that take any free ports claim a range each, so that one that is
// stopped for a moment finds its ports free when it starts again. The ranges lie
// below the ports that kernels give to outgoing connections: one of these would
// keep a node from starting.
const (
	firstRange  = 10000
	lastRange   = 32600
	portsARange = 200
)

// claimPorts finds a range whose first ports are free, for the network in dir. A
// claim is a file in a folder for all networks of a user, which names the
// network's folder; it is void when that folder is gone.
func claimPorts(dir string, wanted int) (first int, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return 0, err
	}
	cache, err := os.UserCacheDir()
	if err != nil { // no home
		cache = os.TempDir()
	}
	claims := filepath.Join(cache, "hansa", "ports")
	if err := os.MkdirAll(claims, 0o700); err != nil {
		return 0, fmt.Errorf("find free ports: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(claims, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return 0, fmt.Errorf("find free ports: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return 0, fmt.Errorf("find free ports: lock %s: %w", lock.Name(), err)
	}

	const ranges = (lastRange - firstRange) / portsARange
	start := rand.IntN(ranges)
search:
	for i := range ranges {
		first := firstRange + (start+i)%ranges*portsARange
		claim := filepath.Join(claims, strconv.Itoa(first))
		if owner, err := claimant(claim); err != nil {
			return 0, fmt.Errorf("find free ports: %w", err)
		} else if owner != "" && owner != dir {
			continue
		}
		for port := first; port < first+wanted; port++ {
			if !canListen(port) {
				continue search
			}
		}
		if err := os.WriteFile(claim, []byte(dir), 0o600); err != nil {
			return 0, fmt.Errorf("find free ports: %w", err)
		}
		return first, nil
	}
	return 0, fmt.Errorf("find free ports: no %d in a row are free between %d and %d; remove networks that are no longer needed, or name a --port", wanted, firstRange, lastRange)
}

// claimant is the folder that has claimed a range, or nothing. A folder may be
// made a moment after its claim.
func claimant(claim string) (string, error) {
	raw, err := os.ReadFile(claim)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	owner := strings.TrimSpace(string(raw))
	info, err := os.Stat(claim)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(owner, networkFile)); errors.Is(err, fs.ErrNotExist) && time.Since(info.ModTime()) > time.Minute {
		return "", nil
	}
	return owner, nil
}
