// Package netns gives each of several processes a network of its own, on one machine: a namespace with an address and one link, and a
// switch to which all links lead and which delays, loses, doubles, reorders or holds back what goes from any of them to any other.
//
// The links are pairs of veth devices, which iproute2 lays. The switch is a program, in this package, that takes the frames off the
// links' ends and puts them on others: what tc's netem could do, link by link and in each direction apart, and on kernels that were
// built without netem. Its dice are seeded.
//
// Everything lives in namespaces of the calling process (Isolate), also the mounts and the process numbers: when that process ends, however it ends, the
// kernel takes all of it away, with every process that was started in it. Nothing needs to be cleaned up, and two runs do not meet.
// Root's rights are not needed where the kernel lets users make namespaces.
//
// Open netns.go for namespaces and links, fabric.go for what happens to frames.
package netns

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const insideVariable = "HANSA_FAULTS_ISOLATED"

// refused is the status with which an isolated process says that it cannot make links.
const refused = 77

// Isolate runs the calling program again with the same arguments in namespaces of its own, and returns its exit status once it has ended.
// In that second process it returns inside. An error says why the machine does not allow it.
func Isolate() (inside bool, status int, err error) {
	if os.Getenv(insideVariable) != "" {
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(refused)
		}
		return true, 0, nil
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return false, 0, fmt.Errorf("iproute2 is not installed: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return false, 0, err
	}
	command := exec.Command(self, os.Args[1:]...)
	command.Env = append(os.Environ(), insideVariable+"=1")
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // the child's life hangs on this thread's
	defer runtime.UnlockOSThread()
	err = command.Run()
	if exited := (*exec.ExitError)(nil); errors.As(err, &exited) {
		if exited.ExitCode() == refused {
			return false, 0, errors.New("namespaces can be made, but no links in them")
		}
		return false, max(exited.ExitCode(), 1), nil
	}
	return false, 0, err
}

// furnish prepares the namespaces: mounts that are nobody else's, a /proc that fits, and a place for ip's names.
func furnish() error {
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{{"", "/", "", syscall.MS_REC | syscall.MS_PRIVATE}, {"proc", "/proc", "proc", 0}, {"tmpfs", "/run", "tmpfs", 0}} {
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	return ip("link set lo up", "link add probe0 type veth peer name probe1", "link del probe0")
}

// ip runs iproute2's commands.
func ip(commands ...string) error {
	command := exec.Command("ip", "-batch", "-")
	command.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w\n%s", err, bytes.TrimSpace(output))
	}
	return nil
}

// Network is a switch with hosts.
type Network struct {
	mu    sync.RWMutex
	hosts []*Host           // guarded by mu
	links map[[2]int]*link  // guarded by mu
	byMAC map[[6]byte]*Host // guarded by mu
	wg    sync.WaitGroup
}

// Host is one namespace. Its processes see one device, eth0, with the address IP.
type Host struct {
	Name string
	IP   string

	index int
	mac   [6]byte
	end   *os.File // the link's end at the switch
	own   bool     // in the namespace of this process
}

// New is a network without hosts. Only one can be in a process at a time.
func New() *Network {
	return &Network{links: map[[2]int]*link{}, byMAC: map[[6]byte]*Host{}}
}

// Add makes a host. The first one is the calling process itself.
func (n *Network) Add(name string) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	index := len(n.hosts) + 1
	h := &Host{Name: name, IP: fmt.Sprintf("10.77.%d.2", index), index: index, mac: [6]byte{2, 77, 0, 0, 0, byte(index)}, own: index == 1}
	near, far := fmt.Sprintf("switch%d", index), fmt.Sprintf("host%d", index)
	if err := ip(fmt.Sprintf("link add %s type veth peer name %s address %s", near, far, h.MAC()), "link set "+near+" addrgenmode none"); err != nil {
		return nil, err
	}
	// Frames must be whole and have their checksums: the switch is no kernel.
	for _, device := range []string{near, far} {
		if err := plain(device); err != nil {
			return nil, fmt.Errorf("device %s: %w", device, err)
		}
	}
	in := ""
	if !h.own {
		in = "-n " + name + " "
		if err := ip("netns add "+name, fmt.Sprintf("link set %s netns %s", far, name)); err != nil {
			return nil, err
		}
	}
	commands := []string{"link set lo up", "link set " + far + " name eth0", "link set eth0 addrgenmode none", "addr add " + h.IP + "/16 dev eth0", "link set eth0 up"}
	for _, other := range n.hosts {
		commands = append(commands, "neigh replace "+other.IP+" lladdr "+other.MAC()+" dev eth0 nud permanent")
	}
	if err := n.ipIn(h, commands...); err != nil {
		return nil, fmt.Errorf("%s%w", in, err)
	}
	for _, other := range n.hosts {
		if err := n.ipIn(other, "neigh replace "+h.IP+" lladdr "+h.MAC()+" dev eth0 nud permanent"); err != nil {
			return nil, err
		}
	}
	if err := ip("link set " + near + " up"); err != nil {
		return nil, err
	}
	var err error
	if h.end, err = tap(near); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", near, err)
	}
	for _, other := range n.hosts {
		n.links[[2]int{h.index, other.index}] = &link{to: other}
		n.links[[2]int{other.index, h.index}] = &link{to: h}
	}
	n.hosts = append(n.hosts, h)
	n.byMAC[h.mac] = h
	n.wg.Go(func() { n.carry(h) })
	return h, nil
}

func (n *Network) ipIn(h *Host, commands ...string) error {
	if h.own {
		return ip(commands...)
	}
	command := exec.Command("ip", "-n", h.Name, "-batch", "-")
	command.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("ip -n %s: %w\n%s", h.Name, err, bytes.TrimSpace(output))
	}
	return nil
}

// MAC is the address of the host's device.
func (h *Host) MAC() string { return net.HardwareAddr(h.mac[:]).String() }

// Command makes a command that runs in the host. The process that it starts becomes the program itself: signals reach it.
func (h *Host) Command(program string, args ...string) *exec.Cmd {
	if h.own {
		return exec.Command(program, args...)
	}
	return exec.Command("ip", append([]string{"netns", "exec", h.Name, program}, args...)...)
}

// Close stops the switch and takes the links away. No process may be left in the hosts.
func (n *Network) Close() error {
	n.mu.RLock()
	var errs []error
	for _, h := range n.hosts {
		h.end.Close()
		errs = append(errs, ip(fmt.Sprintf("link del switch%d", h.index)))
		if !h.own {
			errs = append(errs, ip("netns del "+h.Name))
		}
	}
	n.mu.RUnlock()
	n.wg.Wait()
	return errors.Join(errs...)
}

// plain turns off what devices leave to hardware that is not there.
func plain(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// Checksums and scatter-gather, segments made by the device, and by the driver; segments put together.
	for _, feature := range []uint32{unix.ETHTOOL_STXCSUM, unix.ETHTOOL_SSG, unix.ETHTOOL_STSO, unix.ETHTOOL_SGSO, unix.ETHTOOL_SGRO} {
		value := struct{ command, data uint32 }{command: feature}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:], device)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 && errno != unix.EOPNOTSUPP {
			return errno
		}
	}
	return nil
}

// tap opens a device for whole frames. It sees what comes in, and of IPv4 only.
func tap(device string) (*os.File, error) {
	port, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	const ipv4 = uint16(unix.ETH_P_IP>>8 | unix.ETH_P_IP<<8&0xff00)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(ipv4))
	if err != nil {
		return nil, err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ipv4, Ifindex: port.Index}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), device), nil
}
