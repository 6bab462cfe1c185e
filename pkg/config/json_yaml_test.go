package config

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/goccy/go-yaml"
)

func TestWriteYAML(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{`{"a":1,"b":["x",{"c":null,"d":[]}],"e":{}}`, "a: 1\nb:\n  - x\n  - c: null\n    d: []\ne: {}\n"},
		{`[]`, "[]\n"},
		{`[["a"],[1,2]]`, "- - a\n- - 1\n  - 2\n"},
		{`{"version":18446744073709551615,"f":0.1}`, "version: 18446744073709551615\nf: 0.1\n"},
		{`{"a":"no","b":"1.0","c":"2017-06-26","d":"a: b","e":"","f":"x\ny","g":"node1","h":"/dev/hdisk2"}`,
			"a: \"no\"\nb: \"1.0\"\nc: \"2017-06-26\"\nd: \"a: b\"\ne: \"\"\nf: \"x\\ny\"\ng: node1\nh: /dev/hdisk2\n"},
		{"{\"a\":1}\n{\"a\":2}\n", "a: 1\n---\na: 2\n"},
		{"0 is text, and no number\n\n[[ -n $x ]]\n{ echo; }\n", "0 is text, and no number\n\n[[ -n $x ]]\n{ echo; }\n"},
		{"WARNING: something\n[1]\n", "WARNING: something\n- 1\n"},
	} {
		var b bytes.Buffer
		if err := WriteYAML(&b, []byte(tc.in)); err != nil || b.String() != tc.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", tc.in, err, b.String(), tc.want)
		}
	}
}

// FuzzWriteYAML: what a YAML reader makes of it is what a JSON reader makes of the original.
func FuzzWriteYAML(f *testing.F) {
	for _, s := range []string{`{"a":[1,"b",{"c":"d: e"}]}`, `"- x"`, `["on","~","0x10",".5","1e3","#","a #b","&x","*y","!t","%","@"," lead","trail ","\u0085\u2028\u007f"]`,
		`{"":{"":[[[]]]}}`, `{"y":true,"null":null}`, `"\"$(id)\" ` + "`x`" + ` '"`, `{"<<":"x"}`, `["---","...","?","-",":","|",">","{","["]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var want any
		if json.Unmarshal([]byte(text), &want) != nil || huge(want) {
			return
		}
		want = []any{want}
		canonical, err := json.Marshal(want)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := WriteYAML(&b, canonical); err != nil {
			t.Fatal(err)
		}
		var got any
		if err := yaml.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatalf("%s\nis no YAML: %v\n%s", canonical, err, b.String())
		}
		back, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var have any
		if err := json.Unmarshal(back, &have); err != nil || !reflect.DeepEqual(have, want) {
			t.Errorf("%s\nis read as\n%s\nfrom\n%s", canonical, back, b.String())
		}
	})
}

// huge: there is a number that YAML's reader takes for a text, because no type of its language holds it.
func huge(v any) bool {
	switch x := v.(type) {
	case float64:
		return x > 1e15 || x < -1e15
	case []any:
		return slices.ContainsFunc(x, huge)
	case map[string]any:
		for _, e := range x {
			if huge(e) {
				return true
			}
		}
	}
	return false
}
