{{- define "hdfs-csi.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "hdfs-csi.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $own := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- /* A name has 63 characters, and what is appended up to 20. */}}
{{- default $own .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- end }}

{{- define "hdfs-csi.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hdfs-csi.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hdfs-csi.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "hdfs-csi.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hdfs-csi
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Of pods: nothing that differs from release to release, so that a mounter whose template has not changed is not outdated. */}}
{{- define "hdfs-csi.podLabels" -}}
{{ include "hdfs-csi.selectorLabels" . }}
app.kubernetes.io/part-of: hdfs-csi
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The name of a component's service account: (list $ "controller"). */}}
{{- define "hdfs-csi.serviceAccount" -}}
{{- $root := index . 0 }}
{{- $component := index . 1 }}
{{- $account := (index $root.Values $component).serviceAccount }}
{{- $own := printf "%s-%s" (include "hdfs-csi.fullname" $root) $component }}
{{- ternary (default $own $account.name) (default "default" $account.name) $account.create }}
{{- end }}

{{- define "hdfs-csi.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{- /* A quantity such as 10Gi in bytes. Helm reads numbers of a file as floats, so these are strings or small. */}}
{{- define "hdfs-csi.bytes" -}}
{{- $given := toString . }}
{{- $number := regexFind "^[0-9]+" $given | int64 }}
{{- $unit := regexFind "[A-Za-z]*$" $given }}
{{- mul $number (get (dict "" 1 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) $unit | int64) }}
{{- end }}

{{- define "hdfs-csi.pluginDir" -}}
{{ .Values.kubeletDir }}/plugins/{{ .Values.driverName }}
{{- end }}

{{- /* What is mounted for one pod each: where mounts reach the pods (Bidirectional), and not below the folder of the CSI socket. That
is mounted once more, in the sidecars too: whichever of these starts later would hold on to the mounts that are there by then. */}}
{{- define "hdfs-csi.inlineDir" -}}
{{ include "hdfs-csi.pluginDir" . }}.inline
{{- end }}

{{- define "hdfs-csi.hadoopConfigMap" -}}
{{- if .Values.hadoop.existingConfigMap }}
{{- .Values.hadoop.existingConfigMap }}
{{- else if .Values.hadoop.configFiles }}
{{- include "hdfs-csi.fullname" . }}-hadoop
{{- end }}
{{- end }}

{{- define "hdfs-csi.krb5ConfigMap" -}}
{{- if .Values.kerberos.existingConfigMap }}
{{- .Values.kerberos.existingConfigMap }}
{{- else if .Values.kerberos.krb5Conf }}
{{- include "hdfs-csi.fullname" . }}-krb5
{{- end }}
{{- end }}

{{- define "hdfs-csi.caConfigMap" -}}
{{- if .Values.hadoop.existingCaConfigMap }}
{{- .Values.hadoop.existingCaConfigMap }}
{{- else if .Values.hadoop.caBundle }}
{{- include "hdfs-csi.fullname" . }}-ca
{{- end }}
{{- end }}

{{- define "hdfs-csi.seLinuxOptions" -}}
{{- with .Values.seLinuxType | default (ternary "spc_t" "" .Values.openshift.enabled) }}
seLinuxOptions:
  type: {{ . }}
{{- end }}
{{- end }}

{{- /* What every pod has: (list $ "controller"). */}}
{{- define "hdfs-csi.podSpec" -}}
{{- $root := index . 0 }}
{{- $component := index . 1 }}
{{- $values := index $root.Values $component }}
serviceAccountName: {{ include "hdfs-csi.serviceAccount" . }}
{{- /* Variables of services whose names begin with hdfs-csi could be taken for options (HDFS_CSI_...). */}}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $root.Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- end }}

{{- define "hdfs-csi.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* Volumes of the Hadoop and Kerberos configuration, their mounts, and what says where they are. */}}
{{- define "hdfs-csi.configVolumes" -}}
{{- with include "hdfs-csi.hadoopConfigMap" . }}
- name: hadoop-conf
  configMap:
    name: {{ . }}
{{- end }}
{{- with include "hdfs-csi.krb5ConfigMap" . }}
- name: krb5-conf
  configMap:
    name: {{ . }}
{{- end }}
{{- with include "hdfs-csi.caConfigMap" . }}
- name: hadoop-ca
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}

{{- define "hdfs-csi.configMounts" -}}
{{- if include "hdfs-csi.hadoopConfigMap" . }}
- name: hadoop-conf
  mountPath: /etc/hadoop/conf
  readOnly: true
{{- end }}
{{- if include "hdfs-csi.krb5ConfigMap" . }}
- name: krb5-conf
  mountPath: /etc/krb5.conf
  subPath: krb5.conf
  readOnly: true
{{- end }}
{{- if include "hdfs-csi.caConfigMap" . }}
- name: hadoop-ca
  mountPath: /etc/hadoop/ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "hdfs-csi.configEnv" -}}
{{- if include "hdfs-csi.caConfigMap" . }}
- name: SSL_CERT_FILE
  value: /etc/hadoop/ca/ca.crt
# Where OpenSSL looks besides: the system's otherwise.
- name: SSL_CERT_DIR
  value: /etc/hadoop/ca
{{- end }}
{{- end }}

{{- /* Processes read the configuration when they start; not those of the mounter, which have it read for each mount. */}}
{{- define "hdfs-csi.configChecksum" -}}
{{- if or .Values.hadoop.configFiles .Values.kerberos.krb5Conf }}
checksum/config: {{ list .Values.hadoop.configFiles .Values.kerberos.krb5Conf | toJson | sha256sum }}
{{- end }}
{{- end }}

{{- /* A volume that is made as `type` says: (dict "name" "cache" "values" .Values.cache). */}}
{{- define "hdfs-csi.dataVolume" -}}
- name: {{ .name }}
{{- if eq .values.type "hostPath" }}
  hostPath:
    path: {{ .values.hostPath }}
    type: DirectoryOrCreate
{{- else if eq .values.type "ephemeral" }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        {{- toYaml .values.ephemeral | nindent 8 }}
{{- else }}
  emptyDir:
    {{- toYaml .values.emptyDir | nindent 4 }}
{{- end }}
{{- end }}

{{- /* Who keeps the daemons needs these: the mounter, or the node service without one. */}}
{{- define "hdfs-csi.daemonVolumes" -}}
{{- if .Values.cache.enabled }}
{{ include "hdfs-csi.dataVolume" (dict "name" "cache" "values" .Values.cache) }}
{{- end }}
{{ include "hdfs-csi.dataVolume" (dict "name" "staging" "values" .Values.staging) }}
{{- end }}

{{- define "hdfs-csi.daemonMounts" -}}
{{- if .Values.cache.enabled }}
- name: cache
  mountPath: /var/cache/hdfs-fuse
{{- end }}
- name: staging
  mountPath: /var/lib/hdfs-fuse/staging
{{- end }}

{{- /* Asked of Kubernetes, so that kustomize may choose another one. */}}
{{- define "hdfs-csi.podNamespace" -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end }}

{{- define "hdfs-csi.sidecarImage" -}}
image: {{ .repository }}:{{ .tag }}
imagePullPolicy: {{ .pullPolicy }}
{{- end }}
