package main

import (
	"fmt"
	"sort"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager"
	"k8s.io/kubernetes/pkg/kubelet/pluginmanager/cache"
)

// order is one command.
type order struct {
	ID       int            `json:"id"`
	Do       string         `json:"do"`
	Pod      string         `json:"pod"`
	Wants    map[string]int `json:"wants"`
	Resource string         `json:"resource"`
	IDs      []string       `json:"ids"`
	Times    int            `json:"times"`
	Text     string         `json:"text"`
}

// failure is what the next so many calls fail with.
type failure struct {
	times int
	text  string
}

// node is what the kubelet knows of its pods. Each has one container, and its UID is its name.
type node struct {
	devices   *devicemanager.ManagerImpl
	admission sync.Mutex // the kubelet admits one pod after the other

	mutex   sync.Mutex
	pods    map[string]*v1.Pod
	refusal failure
	invalid failure
}

func newNode(devices *devicemanager.ManagerImpl, names []string) *node {
	node := &node{devices: devices, pods: map[string]*v1.Pod{}}
	for _, name := range names {
		node.pods[name] = makePod(name, nil)
	}
	return node
}

func makePod(name string, wants map[string]int) *v1.Pod {
	limits := v1.ResourceList{}
	for key, count := range wants {
		limits[v1.ResourceName(key)] = *resource.NewQuantity(int64(count), resource.DecimalSI)
	}
	container := v1.Container{Name: "main", Resources: v1.ResourceRequirements{Limits: limits, Requests: limits}}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)},
		Spec:       v1.PodSpec{Containers: []v1.Container{container}},
	}
}

func (n *node) do(order *order) (fields, error) {
	switch order.Do {
	case "refuse":
		n.set(&n.refusal, order)
	case "invalid":
		n.set(&n.invalid, order)
	case "admit":
		return n.admit(order.Pod, order.Wants)
	case "allocate":
		return n.devices.AllocateThese(order.Resource, order.IDs)
	case "start":
		return n.start(order.Pod)
	case "remove":
		n.mutex.Lock()
		defer n.mutex.Unlock()
		delete(n.pods, order.Pod)
	case "state":
		return n.devices.State(), nil
	default:
		return nil, fmt.Errorf("there is no command %q", order.Do)
	}
	return nil, nil
}

// admit allocates what a pod wants, as its admission does; a pod that is refused is none of the node's.
func (n *node) admit(name string, wants map[string]int) (fields, error) {
	n.admission.Lock()
	defer n.admission.Unlock()
	pod := makePod(name, wants)
	n.mutex.Lock()
	n.pods[name] = pod
	n.mutex.Unlock()
	if err := n.devices.Allocate(pod, &pod.Spec.Containers[0]); err != nil {
		n.mutex.Lock()
		delete(n.pods, name)
		n.mutex.Unlock()
		return nil, err
	}
	given := map[string][]string{}
	for key, devices := range n.devices.GetDevices(name, "main") {
		for id := range devices {
			given[key] = append(given[key], id)
		}
		sort.Strings(given[key])
	}
	return fields{"given": given}, nil
}

// start does what the kubelet does with devices before it starts a container, and gives what the container gets.
func (n *node) start(name string) (fields, error) {
	n.mutex.Lock()
	pod, found := n.pods[name]
	n.mutex.Unlock()
	if !found {
		return nil, fmt.Errorf("there is no pod %s", name)
	}
	options, err := n.devices.GetDeviceRunContainerOptions(pod, &pod.Spec.Containers[0])
	return fields{"options": options}, err
}

func (n *node) set(failure *failure, order *order) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	failure.times, failure.text = order.Times, order.Text
}

func (n *node) fail(failure *failure) error {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	if failure.times == 0 {
		return nil
	}
	failure.times--
	return fmt.Errorf("%s", failure.text)
}

// registrar is the device manager's handler for plugins that the plugin manager found, and can be made to fail.
type registrar struct {
	cache.PluginHandler
	node *node
}

func (r *registrar) ValidatePlugin(name, endpoint string, versions []string) error {
	err := r.node.fail(&r.node.invalid)
	if err == nil {
		err = r.PluginHandler.ValidatePlugin(name, endpoint, versions)
	}
	if err != nil {
		tell("invalid", fields{"resource": name, "endpoint": endpoint, "error": err.Error()})
	}
	return err
}

func (r *registrar) RegisterPlugin(name, endpoint string, versions []string, timeout *time.Duration) error {
	err := r.node.fail(&r.node.refusal)
	if err == nil {
		err = r.PluginHandler.RegisterPlugin(name, endpoint, versions, timeout)
	}
	if err != nil {
		tell("refused", fields{"resource": name, "endpoint": endpoint, "error": err.Error()})
		return err
	}
	tell("registered", fields{"resource": name, "endpoint": endpoint})
	return nil
}

func (r *registrar) DeRegisterPlugin(name, endpoint string) {
	tell("deregistered", fields{"resource": name, "endpoint": endpoint})
	r.PluginHandler.DeRegisterPlugin(name, endpoint)
}

// What PodResources asks for.

func (n *node) GetActivePods() []*v1.Pod {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	pods := make([]*v1.Pod, 0, len(n.pods))
	for _, pod := range n.pods {
		pods = append(pods, pod)
	}
	return pods
}

func (n *node) GetPods() []*v1.Pod { return n.GetActivePods() }

func (n *node) GetPodByName(_, name string) (*v1.Pod, bool) {
	n.mutex.Lock()
	defer n.mutex.Unlock()
	pod, found := n.pods[name]
	return pod, found
}

func (n *node) UpdateAllocatedDevices() { n.devices.UpdateAllocatedDevices() }

func (n *node) GetDevices(pod, container string) []*podresources.ContainerDevices {
	return listDevices(n.devices.GetDevices(pod, container))
}

func (n *node) GetAllocatableDevices() []*podresources.ContainerDevices {
	return listDevices(n.devices.GetAllocatableDevices())
}

func listDevices(instances devicemanager.ResourceDeviceInstances) []*podresources.ContainerDevices {
	var found []*podresources.ContainerDevices
	for key, devices := range instances {
		for id := range devices {
			found = append(found, &podresources.ContainerDevices{ResourceName: key, DeviceIds: []string{id}})
		}
	}
	return found
}

func (n *node) GetCPUs(_, _ string) []int64                           { return nil }
func (n *node) GetAllocatableCPUs() []int64                           { return nil }
func (n *node) GetMemory(_, _ string) []*podresources.ContainerMemory { return nil }
func (n *node) GetAllocatableMemory() []*podresources.ContainerMemory { return nil }
func (n *node) GetDynamicResources(_ *v1.Pod, _ *v1.Container) []*podresources.DynamicResource {
	return nil
}
