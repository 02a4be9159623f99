// Package distort builds Go programs that live in a distorted world: their wall clock can be moved and their disk be made slow, while
// they run, from outside.
//
// A program written in C would be run with another libc for this. A static Go program takes nothing from outside, so the change is made
// while it is compiled: with `go build -overlay`, time.Now adds an offset, and fsync and fdatasync wait first, both as a page of shared
// memory says. The program's own source is what it always is, byte for byte, and so is everything else of the standard library. As in
// reality a jump of the wall clock leaves the monotonic clock alone, hence timers and timeouts.
//
// A program that is not given a page (Variable) behaves as usual.
package distort

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Variable names the environment variable with the file of a program's page.
const Variable = "HANSA_FAULTS_PAGE"

// hooks becomes a part of package syscall, which package time imports and through which every call of the kernel goes.
const hooks = `package syscall

import (
	"sync/atomic"
	"unsafe"
)

var distortion *[2]int64

func init() {
	name, ok := Getenv("` + Variable + `")
	if !ok {
		return
	}
	fd, err := Open(name, O_RDONLY|O_CLOEXEC, 0)
	if err != nil {
		panic("` + Variable + `: " + err.Error())
	}
	page, err := Mmap(fd, 0, 4096, PROT_READ, MAP_SHARED)
	if err != nil {
		panic("` + Variable + `: " + err.Error())
	}
	Close(fd)
	distortion = (*[2]int64)(unsafe.Pointer(&page[0]))
}

// DistortedTime moves the wall clock.
func DistortedTime(sec int64, nsec int32) (int64, int32) {
	if distortion == nil {
		return sec, nsec
	}
	total := int64(nsec) + atomic.LoadInt64(&distortion[0])
	sec, total = sec+total/1e9, total%1e9
	if total < 0 {
		sec, total = sec-1, total+1e9
	}
	return sec, int32(total)
}

// distortedDisk waits as long as the disk takes.
func distortedDisk() {
	if distortion == nil {
		return
	}
	if wait := atomic.LoadInt64(&distortion[1]); wait > 0 {
		left := NsecToTimespec(wait)
		for Nanosleep(&left, &left) == EINTR {
		}
	}
}
`

// patch is an edit of one source file; old must occur there as often as count says.
type patch struct {
	old, new string
	count    int
}

// Cache is a good folder for Build, the same at every call.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "hansa-distort"), err
}

// Build compiles a package of the module in whose folder it is called, and everything that it imports, to a static program. dir takes
// the changed sources; use the same one again and again, as compilation is cached by content only if the names are the same.
func Build(ctx context.Context, dir, pkg, output string) error {
	root, err := goCommand(ctx, "env", "GOROOT")
	if err != nil {
		return err
	}
	replace := map[string]string{}
	edit := func(file string, patches ...patch) error {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text := string(raw)
		for _, p := range patches {
			if n := strings.Count(text, p.old); n != p.count {
				return fmt.Errorf("%s has %q %d times, %d are known: another version of Go?", file, p.old, n, p.count)
			}
			text = strings.ReplaceAll(text, p.old, p.new)
		}
		return store(replace, dir, file, text)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	now := "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if err := edit(filepath.Join(root, "src/time/time.go"), patch{now, now + "\tsec, nsec = syscall.DistortedTime(sec, nsec)\n", 1},
		patch{"import (\n", "import (\n\t\"syscall\"\n", 1}); err != nil {
		return err
	}
	system := "func Syscall(trap, a1, a2, a3 uintptr) (r1, r2 uintptr, err Errno) {\n"
	if err := edit(filepath.Join(root, "src/syscall/syscall_linux.go"),
		patch{system, system + "\tif trap == SYS_FSYNC || trap == SYS_FDATASYNC {\n\t\tdistortedDisk()\n\t}\n", 1}); err != nil {
		return err
	}
	if err := store(replace, dir, filepath.Join(root, "src/syscall/distorted.go"), hooks); err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o644); err != nil {
		return err
	}
	_, err = goCommand(ctx, "build", "-trimpath", "-overlay", overlayFile, "-o", output, pkg)
	return err
}

func store(replace map[string]string, dir, file, text string) error {
	name := filepath.Join(dir, strings.ReplaceAll(strings.Trim(file, "/"), "/", "_"))
	replace[file] = name
	return os.WriteFile(name, []byte(text), 0o644)
}

func goCommand(ctx context.Context, args ...string) (string, error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := command.Output()
	if failed, ok := err.(*exec.ExitError); ok {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, failed.Stderr)
	}
	return strings.TrimSpace(string(output)), err
}

// Page is what one program sees; it may start and end meanwhile.
type Page struct {
	File   string
	values *[2]int64
	memory []byte
}

// NewPage makes a page without distortion.
func NewPage(file string) (*Page, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Truncate(4096); err != nil {
		return nil, err
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return &Page{file, (*[2]int64)(unsafe.Pointer(&memory[0])), memory}, nil
}

// Skew sets how far the wall clock is ahead.
func (p *Page) Skew(d time.Duration) { atomic.StoreInt64(&p.values[0], int64(d)) }

// Disk sets how much longer every fsync takes.
func (p *Page) Disk(d time.Duration) { atomic.StoreInt64(&p.values[1], int64(d)) }

// Close forgets the page.
func (p *Page) Close() error { return syscall.Munmap(p.memory) }
