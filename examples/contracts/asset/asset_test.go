package main

import (
	"testing"

	"github.com/hansa-ledger/hansa/contract/contracttest"
)

func TestAssets(t *testing.T) {
	l := contracttest.New(t)
	l.Deploy("basic", assets())
	ann := l.Client("Org1MSP", "ann", nil)
	for _, step := range []struct {
		call   []string
		result string
		err    string
	}{
		{[]string{"CreateAsset", "a1", "blue", "5", "ann", "300"}, "", ""},
		{[]string{"CreateAsset", "a1", "red", "5", "ann", "300"}, "", "the asset a1 already exists"},
		{[]string{"CreateAsset", "a2", "red", "five", "ann", "300"}, "", `argument size of CreateAsset: "five" is no int`},
		{[]string{"TransferAsset", "a1", "bob"}, "ann", ""},
		{[]string{"TransferAsset", "a9", "bob"}, "", "the asset a9 does not exist"},
		{[]string{"ReadAsset", "a1"}, `{"ID":"a1","Color":"blue","Size":5,"Owner":"bob","AppraisedValue":300}`, ""},
		{[]string{"AssetExists", "a1"}, "true", ""},
		{[]string{"AssetExists", "a2"}, "false", ""},
		{[]string{"GetAllAssets"}, `[{"ID":"a1","Color":"blue","Size":5,"Owner":"bob","AppraisedValue":300}]`, ""},
	} {
		result, err := ann.Submit(step.call[0], step.call[1:]...)
		if string(result) != step.result || (err == nil) != (step.err == "") || err != nil && err.Error() != step.err {
			t.Errorf("%q: %s, %v", step.call, result, err)
		}
	}
}
