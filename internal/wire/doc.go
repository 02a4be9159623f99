// Package wire is a place, not code: its subfolders hold the Go messages and gRPC
// services that are generated from the .proto files in proto/hansa, one folder a
// file. They are never edited; CI fails if generating them again changes them.
//
// The messages are wire-identical to Hyperledger Fabric's for everything that
// Hansa uses: the same field numbers and types, gRPC service names and method
// paths. They register under proto package names of their own, so that one
// program can link both Hansa's client and Hyperledger's protobuf modules.
// Fields and messages that Hansa does not use are left out; unknown fields
// survive decoding and encoding. The .proto files are what to read.
package wire
