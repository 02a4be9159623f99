package raft

// ReadLog gives the fuzz test the decoder without a disk.
func ReadLog(content []byte) {
	readFrames(content, &state{})
	nextFrame(content, 0)
	new(state).apply(content)
}
