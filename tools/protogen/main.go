// Command protogen compiles proto/hansa/*.proto into internal/wire.
//
// Messages register under the project's own proto package names (hansa.*), so
// that one program can link them beside Hyperledger's modules, while the gRPC
// service names stay Fabric's: protogen rewrites only those in the generated
// stubs. Run it from the repository's root as
//
//	go run -C tools ./protogen
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const module = "github.com/hansa-ledger/hansa"

// servicePackages maps our proto packages to the package that Fabric serves the
// same services under. Where the last element is the same it is not listed.
// The service that is Hansa's own keeps its name.
var servicePackages = map[string]string{"peer": "protos", "privatedata": "hansa.privatedata"}

func main() {
	if err := run(".."); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	names, err := filepath.Glob(filepath.Join(root, "proto/hansa/*.proto"))
	if err != nil {
		return err
	}
	for i, name := range names {
		names[i] = "hansa/" + filepath.Base(name)
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{filepath.Join(root, "proto")}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		return err
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: names}
	seen := map[string]bool{}
	for _, file := range files {
		request.ProtoFile = appendDescriptors(request.ProtoFile, file, seen)
	}
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		if err := generate(root, plugin, request); err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
	}
	return nil
}

// appendDescriptors appends file after all that it imports, as a plugin expects.
func appendDescriptors(list []*descriptorpb.FileDescriptorProto, file protoreflect.FileDescriptor, seen map[string]bool) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return list
	}
	seen[file.Path()] = true
	for i := range file.Imports().Len() {
		list = appendDescriptors(list, file.Imports().Get(i).FileDescriptor, seen)
	}
	return append(list, protodesc.ToFileDescriptorProto(file))
}

func generate(root, plugin string, request *pluginpb.CodeGeneratorRequest) error {
	request.Parameter = proto.String("module=" + module)
	input, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.Command("go", "tool", plugin)
	command.Stdin = bytes.NewReader(input)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return fmt.Errorf("%s", response.GetError())
	}
	for _, file := range response.File {
		path := filepath.Join(root, file.GetName())
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(servedNames(file.GetName(), file.GetContent())), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// servedNames replaces the service names in a generated gRPC file by those that
// Fabric's clients call: "hansa.peer.Endorser" becomes "protos.Endorser".
func servedNames(name, content string) string {
	if !strings.HasSuffix(name, "_grpc.pb.go") {
		return content
	}
	ours := strings.TrimSuffix(filepath.Base(name), "_grpc.pb.go")
	served, ok := servicePackages[ours]
	if !ok {
		served = ours
	}
	content = strings.ReplaceAll(content, `"/hansa.`+ours+".", `"/`+served+".")
	return strings.ReplaceAll(content, `ServiceName: "hansa.`+ours+".", `ServiceName: "`+served+".")
}
