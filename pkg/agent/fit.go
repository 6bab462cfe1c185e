package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/executor"
)

// Before a definition is taken, the nodes that may run the applications that it adds or changes look at them by their executors, so that
// an agent that could never run is refused before it is needed. A node that does not answer refuses nothing, because a cluster can be
// changed while a node is down: there the start would fail, with the same reason.

// fitLimit is how long the other nodes may take. Their agents are asked for their meta-data, and not run.
const fitLimit = 10 * time.Second

// fitRequest asks a node to look at applications.
type fitRequest struct {
	Controllers []cluster.ApplicationController `json:"controllers"`
}

// fitAnswer says what is wrong, by the name of the application.
type fitAnswer struct {
	Faults map[string]string `json:"faults,omitempty"`
}

// lookAtFit lets this node's executors look. They judge only what this node has.
func lookAtFit(ctx context.Context, executors executor.Registry, q fitRequest) fitAnswer {
	out := fitAnswer{Faults: map[string]string{}}
	for i := range q.Controllers {
		a := &q.Controllers[i]
		if x, ok := executors[executor.KindOf(a)].(executor.Fitter); ok {
			if err := x.Fit(ctx, executor.Resource{Kind: executor.KindOf(a), Name: a.Name, App: a}); err != nil {
				out.Faults[a.Name] = err.Error()
			}
		}
	}
	return out
}

func (m *member) serveFit(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var q fitRequest
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, errors.New("the applications to look at cannot be read")
	}
	return json.Marshal(lookAtFit(ctx, m.executors, q))
}

// newFor lists what a definition adds or changes of the applications that a node may run.
func newFor(node string, before, d *cluster.Definition) fitRequest {
	var q fitRequest
	for i := range d.ApplicationControllers {
		a := &d.ApplicationControllers[i]
		if d.MayRun(node, a.Name) && (before == nil || !reflect.DeepEqual(before.ApplicationController(a.Name), a)) {
			q.Controllers = append(q.Controllers, *a)
		}
	}
	return q
}

// fits asks this node and the other members. Each fault is told with all nodes that find it.
func (m *member) fits(ctx context.Context, before, d *cluster.Definition, file string) error {
	ctx, cancel := context.WithTimeout(ctx, fitLimit)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	faults := map[string]map[string][]string{} // application -> what is wrong -> nodes
	for _, node := range m.view().NodeNames() {
		q := newFor(node, before, d)
		if len(q.Controllers) == 0 {
			continue
		}
		wg.Go(func() {
			var answer fitAnswer
			if _, err := m.callNode(ctx, node, rpcFit, q, &answer, func() any { return lookAtFit(ctx, m.executors, q) }); err != nil {
				m.log.Info("a node did not say whether it could run the applications of the new definition", "node", node, "error", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for name, text := range answer.Faults {
				if faults[name] == nil {
					faults[name] = map[string][]string{}
				}
				faults[name][text] = append(faults[name][text], node)
			}
		})
	}
	wg.Wait()
	return unfit(d, faults, file)
}

// unfit is the refusal of a definition, nil if there is nothing wrong with it.
func unfit(d *cluster.Definition, faults map[string]map[string][]string, file string) error {
	e := api.Errorf(api.CodeInvalid, "the definition cannot be used; nothing was changed")
	for i := range d.ApplicationControllers {
		of := faults[d.ApplicationControllers[i].Name]
		for _, text := range sortedKeys(of) {
			slices.Sort(of[text])
			e.Faults = append(e.Faults, api.Fault{File: file, Key: fmt.Sprintf("application_controllers[%d]", i),
				Message: fmt.Sprintf("%s (said by %s)", text, strings.Join(of[text], ", "))})
		}
	}
	if len(e.Faults) > 0 {
		return e
	}
	return nil
}

// fitsAlone is fits of a node that founds a cluster, and is its only member.
func fitsAlone(ctx context.Context, executors executor.Registry, node string, d *cluster.Definition, file string) error {
	faults := map[string]map[string][]string{}
	for name, text := range lookAtFit(ctx, executors, newFor(node, nil, d)).Faults {
		faults[name] = map[string][]string{text: {node}}
	}
	return unfit(d, faults, file)
}
