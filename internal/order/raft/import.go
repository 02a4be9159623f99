package raft

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Remembered is what a member knew when it was another program: its promises, and the entries that they are about.
type Remembered struct {
	Hard     *raftpb.HardState
	Snapshot *raftpb.Snapshot // what Entries follow, with its index, term and members; nil: they begin at 1
	Entries  []*raftpb.Entry
}

// Import starts a log in dir with what was remembered. The effects of entries up to applied are kept by the owner.
func Import(dir string, m Remembered, applied uint64) error {
	st := &state{base: raftpb.EnsureSnapshot(&raftpb.Snapshot{}), hard: m.Hard, entries: m.Entries}
	if m.Snapshot != nil {
		st.base = raftpb.EnsureSnapshot(m.Snapshot)
	}
	base := st.base.GetMetadata().GetIndex()
	voters := slices.Clone(st.base.GetMetadata().GetConfState().GetVoters())
	for i, e := range m.Entries {
		if e.GetIndex() != base+uint64(i)+1 {
			return fmt.Errorf("entry %d is where entry %d belongs", e.GetIndex(), base+uint64(i)+1)
		}
		if e.GetType() == raftpb.EntryConfChangeV2 {
			return fmt.Errorf("entry %d changes several members at once", e.GetIndex())
		}
		if e.GetIndex() > applied || e.GetType() != raftpb.EntryConfChange {
			continue
		}
		cc := &raftpb.ConfChange{}
		if err := proto.Unmarshal(e.GetData(), cc); err != nil {
			return fmt.Errorf("change of members in entry %d: %w", e.GetIndex(), err)
		}
		switch id := cc.GetNodeId(); cc.GetType() {
		case raftpb.ConfChangeAddNode:
			if !slices.Contains(voters, id) {
				voters = append(voters, id)
			}
		case raftpb.ConfChangeRemoveNode:
			voters = slices.DeleteFunc(voters, func(v uint64) bool { return v == id })
		}
	}
	if last := base + uint64(len(m.Entries)); last < applied && len(m.Entries) > 0 {
		return fmt.Errorf("the log ends at entry %d, yet entry %d has been applied", last, applied)
	}
	w, old, err := openWAL(dir)
	if err != nil {
		return err
	}
	if old != nil {
		return errors.Join(fmt.Errorf("there is a log in %s already", dir), w.close())
	}
	slices.Sort(voters)
	err = w.startSegment(st)
	if err == nil && len(voters) > 0 {
		err = w.append(func(buf []byte) ([]byte, error) {
			return appendItem(buf, itemConfState, &raftpb.ConfState{Voters: voters})
		})
	}
	return errors.Join(err, w.close())
}
