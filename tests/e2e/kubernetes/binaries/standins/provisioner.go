package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const (
	prefix              = "csi.storage.k8s.io/"
	deletionSecretName  = "volume.kubernetes.io/provisioner-deletion-secret-name"
	deletionSecretSpace = "volume.kubernetes.io/provisioner-deletion-secret-namespace"
)

type provisioner struct {
	name     string
	metadata bool
	timeout  time.Duration
	csi      csi.ControllerClient
	kube     kubernetes.Interface
	dynamic  dynamic.Interface
}

func provisionerFlags() func(context.Context) error {
	elect := flag.Bool("leader-election", false, "one of several replicas works")
	space := flag.String("leader-election-namespace", "", "namespace of the lease")
	metadata := flag.Bool("extra-create-metadata", false, "names of PVC and PV among the parameters")
	timeout := flag.Duration("timeout", 15*time.Second, "of each call")
	// Flags of the real one that change nothing here.
	_ = flag.String("http-endpoint", "", "")
	_ = flag.String("feature-gates", "", "")
	_ = flag.Int("worker-threads", 100, "")
	_ = flag.Duration("retry-interval-start", time.Second, "")
	_ = flag.Duration("retry-interval-max", 5*time.Minute, "")
	return func(ctx context.Context) error {
		config, err := rest.InClusterConfig()
		if err != nil {
			return err
		}
		conn, err := dial()
		if err != nil {
			return err
		}
		name, err := driverName(ctx, conn)
		if err != nil {
			return err
		}
		if *space != "" {
			os.Setenv("POD_NAMESPACE", *space) // the library's name for it
		}
		kube := kubernetes.NewForConfigOrDie(config)
		p := &provisioner{name, *metadata, *timeout, csi.NewControllerClient(conn), kube, dynamic.NewForConfigOrDie(config)}
		controller.NewProvisionController(ctx, kube, name, p, controller.LeaderElection(*elect)).Run(ctx)
		return nil
	}
}

var modes = map[v1.PersistentVolumeAccessMode]csi.VolumeCapability_AccessMode_Mode{
	v1.ReadWriteOnce:    csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	v1.ReadWriteOncePod: csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	v1.ReadOnlyMany:     csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	v1.ReadWriteMany:    csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
}

func (p *provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	volume, err := p.provision(ctx, o)
	switch status.Code(err) {
	case codes.OK:
		return volume, controller.ProvisioningFinished, nil
	case codes.DeadlineExceeded, codes.Unavailable, codes.Aborted, codes.Canceled:
		return nil, controller.ProvisioningInBackground, err
	default:
		return nil, controller.ProvisioningFinished, err
	}
}

func (p *provisioner) provision(ctx context.Context, o controller.ProvisionOptions) (*v1.PersistentVolume, error) {
	size := o.PVC.Spec.Resources.Requests[v1.ResourceStorage]
	request := &csi.CreateVolumeRequest{
		Name: o.PVName, Parameters: map[string]string{}, CapacityRange: &csi.CapacityRange{RequiredBytes: size.Value()},
	}
	for key, value := range o.StorageClass.Parameters {
		if !strings.HasPrefix(key, prefix) {
			request.Parameters[key] = value
		}
	}
	if p.metadata {
		request.Parameters[prefix+"pvc/name"] = o.PVC.Name
		request.Parameters[prefix+"pvc/namespace"] = o.PVC.Namespace
		request.Parameters[prefix+"pv/name"] = o.PVName
	}
	fsType := o.StorageClass.Parameters[prefix+"fstype"]
	for _, mode := range o.PVC.Spec.AccessModes {
		capability := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: modes[mode]}}
		if o.PVC.Spec.VolumeMode != nil && *o.PVC.Spec.VolumeMode == v1.PersistentVolumeBlock {
			capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		} else {
			mount := &csi.VolumeCapability_MountVolume{FsType: fsType, MountFlags: o.StorageClass.MountOptions}
			capability.AccessType = &csi.VolumeCapability_Mount{Mount: mount}
		}
		request.VolumeCapabilities = append(request.VolumeCapabilities, capability)
	}
	var err error
	if request.VolumeContentSource, err = p.source(ctx, o.PVC); err != nil {
		return nil, err
	}
	creation := secretOf(o, "provisioner")
	if request.Secrets, err = p.secret(ctx, creation); err != nil {
		return nil, err
	}
	call, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	answer, err := p.csi.CreateVolume(call, request)
	if err != nil {
		return nil, err
	}
	annotations := map[string]string{}
	if creation != nil {
		annotations[deletionSecretName], annotations[deletionSecretSpace] = creation.Name, creation.Namespace
	}
	capacity := *resource.NewQuantity(max(answer.Volume.CapacityBytes, size.Value()), resource.BinarySI)
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: o.PVName, Annotations: annotations},
		Spec: v1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *o.StorageClass.ReclaimPolicy, AccessModes: o.PVC.Spec.AccessModes,
			MountOptions: o.StorageClass.MountOptions, VolumeMode: o.PVC.Spec.VolumeMode,
			VolumeAttributesClassName: o.PVC.Spec.VolumeAttributesClassName,
			Capacity:                  v1.ResourceList{v1.ResourceStorage: capacity},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{
				Driver: p.name, VolumeHandle: answer.Volume.VolumeId, FSType: fsType, VolumeAttributes: answer.Volume.VolumeContext,
				NodeStageSecretRef: secretOf(o, "node-stage"), NodePublishSecretRef: secretOf(o, "node-publish"),
				ControllerExpandSecretRef: secretOf(o, "controller-expand"),
			}},
		},
	}, nil
}

// source is what the claim is to be made from: nil, a snapshot or another claim.
func (p *provisioner) source(ctx context.Context, claim *v1.PersistentVolumeClaim) (*csi.VolumeContentSource, error) {
	source := claim.Spec.DataSource
	if source == nil {
		return nil, nil
	}
	if source.Kind == "PersistentVolumeClaim" {
		from, err := p.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).Get(ctx, source.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		volume, err := p.kube.CoreV1().PersistentVolumes().Get(ctx, from.Spec.VolumeName, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: volume.Spec.CSI.VolumeHandle}}}, nil
	}
	get := func(kind, space, name string) (*unstructured.Unstructured, error) {
		resource := schema.GroupVersionResource{Group: "snapshot.storage.k8s.io", Version: "v1", Resource: kind}
		return p.dynamic.Resource(resource).Namespace(space).Get(ctx, name, metav1.GetOptions{})
	}
	snapshot, err := get("volumesnapshots", claim.Namespace, source.Name)
	if err != nil {
		return nil, err
	}
	if ready, _, _ := unstructured.NestedBool(snapshot.Object, "status", "readyToUse"); !ready {
		return nil, status.Errorf(codes.Aborted, "snapshot %s is not ready", source.Name)
	}
	name, _, _ := unstructured.NestedString(snapshot.Object, "status", "boundVolumeSnapshotContentName")
	content, err := get("volumesnapshotcontents", "", name)
	if err != nil {
		return nil, err
	}
	handle, _, _ := unstructured.NestedString(content.Object, "status", "snapshotHandle")
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: handle}}}, nil
}

// secretOf is the secret that a StorageClass names for `use`, with the names of the claim filled in.
func secretOf(o controller.ProvisionOptions, use string) *v1.SecretReference {
	names := strings.NewReplacer("${pvc.name}", o.PVC.Name, "${pvc.namespace}", o.PVC.Namespace, "${pv.name}", o.PVName)
	name := o.StorageClass.Parameters[prefix+use+"-secret-name"]
	if name == "" {
		return nil
	}
	space := o.StorageClass.Parameters[prefix+use+"-secret-namespace"]
	return &v1.SecretReference{Name: names.Replace(name), Namespace: names.Replace(space)}
}

func (p *provisioner) secret(ctx context.Context, reference *v1.SecretReference) (map[string]string, error) {
	if reference == nil {
		return nil, nil
	}
	secret, err := p.kube.CoreV1().Secrets(reference.Namespace).Get(ctx, reference.Name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s: %w", reference.Namespace, reference.Name, err)
	}
	values := map[string]string{}
	for key, value := range secret.Data {
		values[key] = string(value)
	}
	return values, nil
}

func (p *provisioner) Delete(ctx context.Context, pv *v1.PersistentVolume) error {
	if pv.Spec.CSI == nil || pv.Spec.CSI.Driver != p.name {
		return &controller.IgnoredError{Reason: "another driver's"}
	}
	request := &csi.DeleteVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle}
	if name := pv.Annotations[deletionSecretName]; name != "" {
		var err error
		reference := &v1.SecretReference{Name: name, Namespace: pv.Annotations[deletionSecretSpace]}
		if request.Secrets, err = p.secret(ctx, reference); err != nil {
			return err
		}
	}
	call, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	_, err := p.csi.DeleteVolume(call, request)
	return err
}
