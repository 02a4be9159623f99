// Package raft replicates a channel's blocks with etcd's raft library: the library decides, this package does its I/O.
//
// A Node is one member of one channel's cluster. Its owner, a single goroutine, proposes opaque payloads (blocks without
// metadata), steps in messages from other members, ticks its clock, and calls Advance, which makes everything that the
// library asked for durable, sends messages, and returns what is committed now.
//
// Guaranteed: nothing is answered to another member, and nothing is returned as committed, before the entries and votes it
// depends on are fsynced, here or on a majority. A leader sends new entries while it writes them itself: both fsyncs run
// side by side. A single member commits in one fsync however many entries are proposed before one Advance. After a crash at any byte, Open gives back every committed entry behind Config.Applied; a torn end
// of the log is cut, damage anywhere else is a CorruptLogError.
//
// A member whose log was lost is told from a new one as far as that can be (Config.Doubtful, ErrForgot): until it has
// caught up it elects nobody who may lack what it has forgotten.
//
// Left out: connections between members (Transport is the seam), and what a snapshot stands for: a member that fell behind
// the compacted log is sent one that says where the log begins, and its owner fetches the blocks another way before it
// steps that message in.
//
// Open raft.go first, then wal.go for the log's format.
package raft

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"time"

	etcd "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// Transport sends messages to other members. Send must not block and may drop messages: raft repeats what matters. The
// messages must not be changed. A cluster of one member needs no Transport.
type Transport interface {
	Send(messages []*raftpb.Message)
}

// Config says which member a Node is and where it keeps its log.
type Config struct {
	Dir string // the log's folder, created if missing
	ID  uint64 // this member, from 1
	// Members bootstraps a new log with these members, the same list on each of them. An existing log knows its own.
	Members []uint64
	// Join starts a new log that is empty: the leader of an existing cluster, which has added this member, will fill it.
	Join bool
	// Applied is the index of the last entry whose effect the owner has kept.
	Applied uint64
	// Doubtful says that this member may have had a log, if there is none now: it could have made promises that it does not
	// remember. Until a leader has brought it up to date it does not vote, nor stand for election, unless nobody whom it
	// would vote for knows more than the members' names. What remains is a leader that was deposed and has not noticed yet,
	// if this member lost its log and started anew within that election timeout, and hears from nobody else.
	Doubtful bool
	// Elsewhere says that the owner may have got effects of entries from elsewhere than this log, so that Applied says
	// nothing about what the log holds. Entries up to Applied may then be returned again. Without it they never are.
	Elsewhere     bool
	ElectionTick  int
	HeartbeatTick int
	MaxInflight   int // append messages on their way to one member
	// RetainBytes of applied entries stay in memory for members that lag. 0 for a cluster of one.
	RetainBytes int
	Transport   Transport
	Log         *slog.Logger
}

// Committed is one committed payload, in the order of the log.
type Committed struct {
	Index uint64
	Term  uint64
	Data  []byte
}

// ErrDropped says that a payload was not accepted: this node is not the leader, or has too much uncommitted.
var ErrDropped = errors.New("proposal dropped")

// ErrForgot says that this member once acknowledged entries that its log does not have: the log was lost, or restored from
// an old copy. It must not go on as this member, whose promises it does not know.
var ErrForgot = errors.New("the consensus log lacks what this node once acknowledged")

// Node is a member. All methods are for one goroutine.
type Node struct {
	cfg     Config
	raw     *etcd.RawNode
	storage *storage
	wal     *wal
	hard    *raftpb.HardState // the last one that raft gave out; the log may hold an older commit index
	lead    uint64
	leading bool
	settled uint64 // the term of the newest committed entry
	applied uint64
	doubted bool // see Config.Doubtful; for as long as doubtFile is there
	refused int  // requests for its vote, for that reason
	syncs   int
	waited  time.Duration
}

// doubtFile stands in the log's folder until a member that started without a log has been brought up to date.
const doubtFile = "doubted"

// manyRefusals are requests for a vote that do not come while there is a leader.
const manyRefusals = 20

// storage is what raft reads: etcd's memory storage, with the members kept apart because they change between snapshots.
type storage struct {
	*etcd.MemoryStorage
	conf *raftpb.ConfState
	hard *raftpb.HardState
}

// Snapshot overrides the snapshot's members with those of now: a member that was added since it was taken would refuse it.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	snap, err := s.MemoryStorage.Snapshot()
	if err != nil {
		return nil, err
	}
	m := snap.GetMetadata()
	return &raftpb.Snapshot{Data: snap.GetData(), Metadata: &raftpb.SnapshotMetadata{
		ConfState: s.conf, Index: new(m.GetIndex()), Term: new(m.GetTerm())}}, nil
}

func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return s.hard, s.conf, nil
}

// Exists says whether a log has been started in dir, that is whether a member would remember anything.
func Exists(dir string) (bool, error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	w, st, err := openWAL(dir)
	if err != nil {
		return false, err
	}
	return st != nil, w.close()
}

// Open reads the log and makes the node ready. A cluster of one elects itself at once, in the first Advance.
func Open(cfg Config) (*Node, error) {
	if cfg.ElectionTick == 0 {
		cfg.ElectionTick, cfg.HeartbeatTick = 10, 1
	}
	if cfg.MaxInflight == 0 {
		cfg.MaxInflight = 5
	}
	w, st, err := openWAL(cfg.Dir)
	if err != nil {
		return nil, err
	}
	n, err := open(cfg, w, st)
	if err != nil {
		w.close()
		return nil, err
	}
	return n, nil
}

func open(cfg Config, w *wal, st *state) (*Node, error) {
	fresh := st == nil
	if fresh {
		if len(cfg.Members) == 0 && !cfg.Join {
			return nil, errors.New("a new raft log needs its members")
		}
		if cfg.Applied != 0 && !cfg.Join {
			return nil, fmt.Errorf("the raft log in %s is missing, yet entry %d has been applied: restore the folder, or remove the channel and join it again", cfg.Dir, cfg.Applied)
		}
		if cfg.Doubtful {
			if err := os.WriteFile(filepath.Join(cfg.Dir, doubtFile), nil, 0o640); err != nil {
				return nil, fmt.Errorf("start raft log: %w", err)
			}
		}
		st = &state{base: raftpb.EnsureSnapshot(nil), conf: raftpb.EnsureConfState(nil)}
		if err := w.startSegment(st); err != nil {
			return nil, err
		}
	}
	s := &storage{MemoryStorage: etcd.NewMemoryStorage(), conf: st.conf, hard: st.hard}
	if st.base.GetMetadata().GetIndex() > 0 {
		if err := s.ApplySnapshot(st.base); err != nil {
			return nil, fmt.Errorf("load raft log: %w", err)
		}
	}
	if err := s.Append(st.entries); err != nil {
		return nil, fmt.Errorf("load raft log: %w", err)
	}
	applied := cfg.Applied
	if base := st.base.GetMetadata().GetIndex(); applied < base {
		return nil, fmt.Errorf("the raft log in %s starts behind entry %d, yet only entry %d has been applied: blocks that were durable are missing; restore them, or remove the channel and join it again", cfg.Dir, base, applied)
	}
	if cfg.Elsewhere || cfg.Join {
		// The log may end before what was applied, and its end may be an entry that was never committed.
		applied = min(applied, max(s.hard.GetCommit(), st.base.GetMetadata().GetIndex()))
	}
	if last, _ := s.LastIndex(); applied > last {
		return nil, fmt.Errorf("the raft log in %s ends at entry %d, yet entry %d has been applied: restore the folder, or remove the channel and join it again", cfg.Dir, last, applied)
	}
	// What has been applied was committed, though the log may hold an older commit index (it is written with the next entry).
	if s.hard.GetCommit() < applied {
		s.hard = &raftpb.HardState{Term: new(s.hard.GetTerm()), Vote: new(s.hard.GetVote()), Commit: new(applied)}
	}
	// Conf changes that took effect before the crash but whose membership item was lost are applied again: hold raft's
	// applied index back to the base while there is no member.
	raftApplied := applied
	if len(s.conf.GetVoters()) == 0 {
		raftApplied = st.base.GetMetadata().GetIndex()
	}
	raw, err := etcd.NewRawNode(&etcd.Config{
		ID: cfg.ID, ElectionTick: cfg.ElectionTick, HeartbeatTick: cfg.HeartbeatTick, Storage: s, Applied: raftApplied,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 64 << 20, MaxInflightMsgs: cfg.MaxInflight,
		MaxUncommittedEntriesSize: math.MaxInt64, CheckQuorum: true, PreVote: true,
		// Only the leader makes blocks, so a proposal forwarded by raft could never fit the chain.
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    &logger{cfg.Log},
	})
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	n := &Node{cfg: cfg, raw: raw, storage: s, wal: w, hard: s.hard, applied: applied}
	if _, err := os.Stat(filepath.Join(cfg.Dir, doubtFile)); err == nil {
		n.doubted = true
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	if last, _ := s.LastIndex(); last == 0 && !cfg.Join && len(cfg.Members) > 0 {
		peers := make([]etcd.Peer, len(cfg.Members))
		for i, id := range cfg.Members {
			peers[i].ID = id
		}
		if err := raw.Bootstrap(peers); err != nil {
			return nil, fmt.Errorf("start raft: %w", err)
		}
	}
	return n, nil
}

// Propose hands a payload to raft if this node leads. It is in the chain once Advance returned it, and may still be lost
// when another member takes the lead before that.
func (n *Node) Propose(data []byte) error {
	if !n.Leading() {
		return ErrDropped
	}
	if err := n.raw.Propose(data); errors.Is(err, etcd.ErrProposalDropped) {
		return ErrDropped
	} else if err != nil {
		return fmt.Errorf("propose: %w", err)
	}
	return nil
}

// Tick moves raft's clock on by one tick. The clock of a member that must not stand for election stands still.
func (n *Node) Tick() {
	if n.mayStand() {
		n.raw.Tick()
	}
}

// mayStand says whether this member may ask for votes: one that is doubted only as long as it knows no more than the
// members' names, since who votes for it then has nothing to lose either.
func (n *Node) mayStand() bool {
	last, _ := n.storage.LastIndex()
	return !n.doubted || n.leading || last <= uint64(len(n.cfg.Members))
}

// mayVote says whether this member may answer a request for its vote.
func (n *Node) mayVote(m *raftpb.Message) bool {
	names := uint64(len(n.cfg.Members))
	last, _ := n.storage.LastIndex()
	return !n.doubted || last <= names && m.GetIndex() <= names && m.GetLogTerm() <= 1
}

// trust ends the doubt when this member has all that a leader of now has committed, or leads itself.
func (n *Node) trust() error {
	if !n.doubted || n.lead == 0 || n.settled == 0 || n.settled != n.Term() {
		return nil
	}
	if err := os.Remove(filepath.Join(n.cfg.Dir, doubtFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keep raft log: %w", err)
	}
	n.doubted = false
	n.cfg.Log.Info("the consensus log is complete: this node votes")
	return nil
}

// ProposeChange makes the member of that id join or leave the cluster, if this node leads. One change at a time: raft
// ignores another until the first is in force, which Members tells.
func (n *Node) ProposeChange(id uint64, add bool) error {
	if !n.Leading() {
		return ErrDropped
	}
	kind := raftpb.ConfChangeRemoveNode
	if add {
		kind = raftpb.ConfChangeAddNode
	}
	if err := n.raw.ProposeConfChange(&raftpb.ConfChange{Type: kind.Enum(), NodeId: new(id)}); errors.Is(err, etcd.ErrProposalDropped) {
		return ErrDropped
	} else if err != nil {
		return fmt.Errorf("propose change of members: %w", err)
	}
	return nil
}

// Campaign asks for the lead now, not an election timeout later. The other members refuse while they hear from a leader.
func (n *Node) Campaign() error {
	if !n.mayStand() {
		return nil
	}
	if err := n.raw.Campaign(); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}
	return nil
}

// ForgetLeader makes this member, if it follows, free to vote before its election timeout: it has reason to believe that
// the leader is gone. A leader that is not makes itself known again with its next message.
func (n *Node) ForgetLeader() error {
	if err := n.raw.ForgetLeader(); err != nil {
		return fmt.Errorf("forget the leader: %w", err)
	}
	return nil
}

// TransferLead asks the member that has most of the log, of those that were heard from lately, to take the lead at once.
// It returns 0 when there is none. Until the lead has moved, or an election timeout has passed, proposals are dropped.
func (n *Node) TransferLead() uint64 {
	if !n.leading {
		return 0
	}
	var to, match uint64
	n.raw.WithProgress(func(id uint64, _ etcd.ProgressType, p tracker.Progress) {
		if id != n.cfg.ID && p.RecentActive && p.Match > match {
			to, match = id, p.Match
		}
	})
	if to != 0 {
		n.raw.TransferLeader(to)
	}
	return to
}

// Unreachable tells raft that messages to a member were lost.
func (n *Node) Unreachable(id uint64) { n.raw.ReportUnreachable(id) }

// SnapshotSent tells raft whether a snapshot went out. Without it the member gets no entries.
func (n *Node) SnapshotSent(id uint64, ok bool) {
	status := etcd.SnapshotFailure
	if ok {
		status = etcd.SnapshotFinish
	}
	n.raw.ReportSnapshot(id, status)
}

// Step gives raft a message of another member. A snapshot may be stepped in only when the owner has durably what it stands
// for. Messages of kinds that members do not send each other are ignored. An error is final.
func (n *Node) Step(m *raftpb.Message) (err error) {
	switch m.GetType() {
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgHeartbeatResp, raftpb.MsgSnap:
	case raftpb.MsgVote, raftpb.MsgPreVote:
		if !n.mayVote(m) {
			if n.refused++; n.refused == manyRefusals {
				n.cfg.Log.Warn("this node does not vote: its consensus log is new, and if it had another one before that was lost, its vote could lose what was committed. It waits for a leader that has all. If there can be none, and only if this node never took part before, stop it, delete the file, and start it again",
					"file", filepath.Join(n.cfg.Dir, doubtFile))
			}
			return nil
		}
	case raftpb.MsgTimeoutNow:
		if !n.mayStand() {
			return nil
		}
	case raftpb.MsgHeartbeat:
		// A leader tells of no more than this member has acknowledged to it.
		if last, _ := n.storage.LastIndex(); m.GetCommit() > last && m.GetTerm() >= n.Term() {
			return fmt.Errorf("%w: it ends at entry %d, and the leader has had entry %d from here", ErrForgot, last, m.GetCommit())
		}
	default:
		return nil
	}
	defer n.contain(&err)
	if err := n.raw.Step(m); err != nil && !errors.Is(err, etcd.ErrStepPeerNotFound) && !errors.Is(err, etcd.ErrProposalDropped) {
		return fmt.Errorf("raft message from member %d: %w", m.GetFrom(), err)
	}
	return nil
}

// contain turns a panic of the library into an error: it finds that this member's log lacks what it once acknowledged, or
// that another member breaks the rules. Neither can be gone on with, yet the process has other channels.
func (n *Node) contain(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("raft cannot go on, and if this node's folder was restored from a copy it must be removed from the channel and added anew: %v", p)
	}
}

// Leading says whether this node is the leader and has seen everything that earlier leaders committed, as of the last
// Advance. Only then may it build on what it knows.
func (n *Node) Leading() bool { return n.leading && n.settled == n.Term() }

// Leader is the leader's id, 0 while none is known.
func (n *Node) Leader() uint64 { return n.lead }

// Settled is the term of the newest entry that this node knows to be committed. What was proposed in an earlier term has
// been returned by Advance by now, or never will be.
func (n *Node) Settled() uint64 { return n.settled }

// Term is raft's current term.
func (n *Node) Term() uint64 { return n.hard.GetTerm() }

// Applied is the index of the newest entry that Advance has dealt with.
func (n *Node) Applied() uint64 { return n.applied }

// Members are the ids of the cluster's members.
func (n *Node) Members() []uint64 { return n.storage.conf.GetVoters() }

// LogSize is the number of bytes in the newest segment of the log: the owner compacts when it grows.
func (n *Node) LogSize() int64 { return n.wal.size }

// Syncs tells how often the log was fsynced and for how long in all.
func (n *Node) Syncs() (int, time.Duration) { return n.syncs, n.waited }

// Advance does everything that raft has ready and returns the committed payloads. Several rounds may be needed: a single
// member first makes an entry durable, then learns that it is committed. An error is final.
func (n *Node) Advance() (out []Committed, err error) {
	defer n.contain(&err)
	if err := n.takeLead(); err != nil {
		return nil, err
	}
	for n.raw.HasReady() {
		rd := n.raw.Ready()
		if rd.SoftState != nil {
			n.lead, n.leading = rd.SoftState.Lead, rd.SoftState.RaftState == etcd.StateLeader
		}
		now, after := rd.Messages, []*raftpb.Message(nil)
		if !n.leading || rd.SoftState != nil {
			now, after = nil, rd.Messages
		}
		n.send(now)
		if err := n.save(rd); err != nil {
			return out, err
		}
		n.send(after)
		for _, e := range rd.CommittedEntries {
			c, ok, err := n.commit(e)
			if err != nil {
				return out, err
			}
			if ok {
				out = append(out, c)
			}
		}
		n.raw.Advance(rd)
		if err := n.takeLead(); err != nil {
			return out, err
		}
	}
	return out, n.trust()
}

// send hands messages out. A leader's go before its own fsync (thesis, 10.2.1): its own copy of an entry counts towards
// the majority only when it is durable, and it answers nobody.
func (n *Node) send(messages []*raftpb.Message) {
	if n.cfg.Transport != nil && len(messages) > 0 {
		n.cfg.Transport.Send(messages)
	}
}

// takeLead lets a cluster of one elect itself now and not an election timeout later: it has nobody to wait for.
func (n *Node) takeLead() error {
	if members := n.Members(); len(members) != 1 || members[0] != n.cfg.ID {
		return nil
	}
	if st := n.raw.BasicStatus(); st.RaftState != etcd.StateFollower || st.Lead != 0 {
		return nil
	}
	if err := n.raw.Campaign(); err != nil {
		return fmt.Errorf("take the lead: %w", err)
	}
	return nil
}

// save makes a Ready durable. A new commit index alone is not written: raft finds it again, and it goes with the next entry.
func (n *Node) save(rd etcd.Ready) error {
	mustSync := len(rd.Entries) > 0
	if !etcd.IsEmptyHardState(rd.HardState) {
		mustSync = mustSync || rd.HardState.GetTerm() != n.hard.GetTerm() || rd.HardState.GetVote() != n.hard.GetVote()
		n.hard = rd.HardState
	}
	if !etcd.IsEmptySnap(rd.Snapshot) {
		if err := n.install(rd.Snapshot); err != nil {
			return err
		}
	}
	if mustSync {
		if err := n.write(func(buf []byte) ([]byte, error) {
			buf, err := appendItem(buf, itemHardState, n.hardState())
			for _, e := range rd.Entries {
				if err != nil {
					return nil, err
				}
				buf, err = appendItem(buf, itemEntry, e)
			}
			return buf, err
		}); err != nil {
			return err
		}
	}
	if err := n.storage.Append(rd.Entries); err != nil {
		return fmt.Errorf("keep raft entries: %w", err)
	}
	return nil
}

// install starts the log anew behind a snapshot.
func (n *Node) install(snap *raftpb.Snapshot) error {
	if err := n.storage.ApplySnapshot(snap); err != nil {
		return fmt.Errorf("install raft snapshot: %w", err)
	}
	n.storage.conf = raftpb.EnsureConfState(snap.GetMetadata().GetConfState())
	n.applied = max(n.applied, snap.GetMetadata().GetIndex())
	n.syncs++
	return n.wal.startSegment(&state{base: snap, hard: n.hardState()})
}

func (n *Node) hardState() *raftpb.HardState {
	if n.hard == nil {
		return &raftpb.HardState{}
	}
	return n.hard
}

func (n *Node) write(fill func([]byte) ([]byte, error)) error {
	start := time.Now()
	err := n.wal.append(fill)
	n.syncs++
	n.waited += time.Since(start)
	return err
}

// commit returns the payload of a committed entry, or applies its change of members.
func (n *Node) commit(e *raftpb.Entry) (Committed, bool, error) {
	again := e.GetIndex() <= n.applied
	n.applied = max(n.applied, e.GetIndex())
	n.settled = e.GetTerm()
	switch e.GetType() {
	case raftpb.EntryConfChange:
		cc := &raftpb.ConfChange{}
		if err := proto.Unmarshal(e.GetData(), cc); err != nil {
			return Committed{}, false, fmt.Errorf("change of members in entry %d: %w", e.GetIndex(), err)
		}
		conf := n.raw.ApplyConfChange(cc)
		n.storage.conf = conf
		return Committed{}, false, n.write(func(buf []byte) ([]byte, error) { return appendItem(buf, itemConfState, conf) })
	case raftpb.EntryNormal:
		if again || len(e.GetData()) == 0 { // a new leader's first entry is empty
			return Committed{}, false, nil
		}
		return Committed{Index: e.GetIndex(), Term: e.GetTerm(), Data: e.GetData()}, true, nil
	default:
		return Committed{}, false, fmt.Errorf("entry %d is of the unknown type %v", e.GetIndex(), e.GetType())
	}
}

// Compact drops entries up to index from the log: their effect is durable elsewhere. data is what a member that lags
// behind them will be told.
func (n *Node) Compact(index uint64, data []byte) error {
	first, err := n.storage.FirstIndex()
	if err != nil {
		return err
	}
	if index < first {
		return nil
	}
	if index > n.applied {
		return fmt.Errorf("compact raft log: entry %d is not applied yet", index)
	}
	keep := index
	for kept := 0; keep > first; keep-- {
		es, err := n.storage.Entries(keep, keep+1, math.MaxUint64)
		if err != nil {
			return fmt.Errorf("compact raft log: %w", err)
		}
		if kept += len(es[0].GetData()); kept > n.cfg.RetainBytes {
			break
		}
	}
	snap, err := n.storage.CreateSnapshot(keep, n.storage.conf, data)
	if err != nil {
		return fmt.Errorf("compact raft log: %w", err)
	}
	if err := n.storage.MemoryStorage.Compact(keep); err != nil {
		return fmt.Errorf("compact raft log: %w", err)
	}
	var rest []*raftpb.Entry
	if last, _ := n.storage.LastIndex(); last > keep {
		if rest, err = n.storage.Entries(keep+1, last+1, math.MaxUint64); err != nil {
			return fmt.Errorf("compact raft log: %w", err)
		}
	}
	return n.wal.startSegment(&state{base: snap, hard: n.hardState(), entries: rest})
}

// Close closes the log. Nothing is lost: all that was returned is durable.
func (n *Node) Close() error { return n.wal.close() }

// logger gives raft's own messages to slog, its chatter one level lower than it asks.
type logger struct{ log *slog.Logger }

func (l *logger) Debug(v ...any)        {}
func (l *logger) Debugf(string, ...any) {}
func (l *logger) Info(v ...any)         { l.log.Debug("raft", "message", fmt.Sprint(v...)) }
func (l *logger) Infof(format string, v ...any) {
	l.log.Debug("raft", "message", fmt.Sprintf(format, v...))
}
func (l *logger) Warning(v ...any) { l.log.Warn("raft", "message", fmt.Sprint(v...)) }
func (l *logger) Warningf(format string, v ...any) {
	l.log.Warn("raft", "message", fmt.Sprintf(format, v...))
}
func (l *logger) Error(v ...any) { l.log.Error("raft", "message", fmt.Sprint(v...)) }
func (l *logger) Errorf(format string, v ...any) {
	l.log.Error("raft", "message", fmt.Sprintf(format, v...))
}

// raft calls these for broken invariants only; going on would risk the log.
func (l *logger) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l *logger) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (l *logger) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l *logger) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
