{{- define "aircheck.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for "-coordinator" and a pod's ordinal behind it. */}}
{{- define "aircheck.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "aircheck.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "aircheck.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "aircheck.selector" -}}
app.kubernetes.io/name: {{ include "aircheck.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aircheck.labels" -}}
{{ include "aircheck.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: aircheck
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "aircheck.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "aircheck.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "aircheck.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "aircheck.metadataUrl" -}}
{{- if .Values.metadata.url -}}
{{- if .Values.trial.etcd.enabled -}}
{{- fail "metadata.url and trial.etcd.enabled are both given: give one" -}}
{{- end -}}
{{- .Values.metadata.url -}}
{{- else if .Values.trial.etcd.enabled -}}
{{- printf "etcd://%s-etcd:2379/aircheck" (include "aircheck.fullname" .) -}}
{{- else -}}
{{- fail "metadata.url is empty: give the etcd that holds metadata, such as etcd://etcd.example.com:2379/aircheck, or, to try things out, trial.etcd.enabled=true" -}}
{{- end -}}
{{- end -}}

{{/* The Secret with TLS for etcd, or nothing. */}}
{{- define "aircheck.metadataTls" -}}
{{- $tls := .Values.metadata.tls -}}
{{- if and $tls.existingSecret $tls.certManager.enabled -}}
{{- fail "metadata.tls.existingSecret and metadata.tls.certManager.enabled are both given: give one" -}}
{{- end -}}
{{- $secret := $tls.existingSecret -}}
{{- if $tls.certManager.enabled -}}
{{- $secret = printf "%s-etcd-client" (include "aircheck.fullname" .) -}}
{{- end -}}
{{- $url := include "aircheck.metadataUrl" . -}}
{{- if and $secret (not (hasPrefix "etcds://" $url)) -}}
{{- fail "metadata.tls is given, but metadata.url does not begin with etcds://" -}}
{{- end -}}
{{- if and (not $secret) (hasPrefix "etcds://" $url) -}}
{{- fail "metadata.url begins with etcds://: give metadata.tls.existingSecret or metadata.tls.certManager" -}}
{{- end -}}
{{- $secret -}}
{{- end -}}

{{/* The Secret with the certificate of a role ("role"), or nothing: then gRPC and HTTP are in the clear. */}}
{{- define "aircheck.tls" -}}
{{- $tls := .Values.tls -}}
{{- $given := index $tls (printf "%sSecret" .role) -}}
{{- if ne (empty $tls.coordinatorSecret) (empty $tls.workerSecret) -}}
{{- fail "tls.coordinatorSecret and tls.workerSecret go together: give both, or neither" -}}
{{- end -}}
{{- if and $given $tls.certManager.enabled -}}
{{- fail "tls.coordinatorSecret and tls.certManager.enabled are both given: give one" -}}
{{- end -}}
{{- if $tls.certManager.enabled -}}
{{- printf "%s-%s-tls" (include "aircheck.fullname" .) .role -}}
{{- else -}}
{{- $given -}}
{{- end -}}
{{- end -}}

{{/* http or https, as it is served. */}}
{{- define "aircheck.scheme" -}}
{{- ternary "https" "http" (not (empty (include "aircheck.tls" (merge (dict "role" "coordinator") .)))) -}}
{{- end -}}

{{/* The Secret with the tokens, or nothing. */}}
{{- define "aircheck.tokens" -}}
{{- if and .Values.credentials.existingSecret .Values.insecure -}}
{{- fail "credentials.existingSecret and insecure=true are both given: give one" -}}
{{- end -}}
{{- if not (or .Values.credentials.existingSecret .Values.insecure) -}}
{{- fail "credentials.existingSecret is empty: name a Secret with the keys join-token and api-token (values.yaml says how to make one), or, to try things out, insecure=true" -}}
{{- end -}}
{{- .Values.credentials.existingSecret -}}
{{- end -}}

{{/* Where media goes, or nothing. */}}
{{- define "aircheck.objectsUrl" -}}
{{- if and .Values.objects.url .Values.trial.s3.enabled -}}
{{- fail "objects.url and trial.s3.enabled are both given: give one" -}}
{{- end -}}
{{- if .Values.trial.s3.enabled -}}
s3://aircheck
{{- else -}}
{{- .Values.objects.url -}}
{{- end -}}
{{- end -}}

{{/* The keys of the bucket, as variables of a container. */}}
{{- define "aircheck.objectsKeys" -}}
{{- $secret := .Values.objects.credentialsSecret -}}
{{- if .Values.trial.s3.enabled -}}
{{- $secret = dict "name" (printf "%s-s3" (include "aircheck.fullname" .)) "accessKeyId" "access-key-id" "secretAccessKey" "secret-access-key" -}}
{{- end -}}
{{- with $secret -}}
{{- if .name -}}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .accessKeyId }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .secretAccessKey }}}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings as TOML, one `section.key = value` a line. Takes a dictionary of them. */}}
{{- define "aircheck.toml" -}}
{{- range $key := keys . | sortAlpha -}}
{{ $key }} = {{ get $ $key | toJson }}
{{ end -}}
{{- end -}}

{{/* What an operator asks for beside what the chart decides. */}}
{{- define "aircheck.settings" -}}
{{- $owned := dict
  "node.data_dir" "the chart's volume" "node.insecure" "insecure" "store.url" "metadata.url" "store.user" "metadata.user"
  "store.password_file" "metadata.passwordSecret" "store.ca_file" "metadata.tls" "store.cert_file" "metadata.tls" "store.key_file" "metadata.tls"
  "objects.url" "objects.url" "coordinator.grpc" "coordinator.service" "coordinator.http" "coordinator.service" "coordinator.name" "the pod's name"
  "tls.cert_file" "tls" "tls.key_file" "tls" "tls.ca_file" "tls" "tls.coordinator_name" "tls" "tls.admit_certificates" "tls"
  "coordinator.advertise" "the pod's address" "coordinator.record" "coordinator.record" "worker.rtmp" "worker.rtmp" "worker.http" "networkPolicy.http" "worker.coordinator" "the coordinators' Service"
  "worker.name" "the pod's name" "coordinator.secrets_key_file" "coordinator.secretsKeySecret" 
  "coordinator.scale_in.workers" "autoscaling.scaleIn" "coordinator.scale_in.after" "autoscaling.scaleIn" "coordinator.scale_in.least" "autoscaling.minReplicas"
  "coordinator.scale_in.streams_per_worker" "autoscaling.keda" "coordinator.scale_in.bits_per_worker" "autoscaling.keda"
  "coordinator.scale_in.reserve_streams" "autoscaling.keda" "coordinator.scale_in.reserve_percent" "autoscaling.keda"
  "hooks.origin" "hooks.origin" "hooks.domain" "hooks.domain" "hooks.token" "hooks.tokenSecret" "hooks.token_file" "hooks.tokenSecret"
  "worker.drain_grace" "worker.drainGraceSeconds"
  "worker.ingest.allow_anyone" "networkPolicy.publishers" "auth.join_token" "credentials" "auth.join_token_file" "credentials" "auth.api_token" "credentials"
  "auth.api_token_file" "credentials" -}}
{{- range $key, $_ := .Values.settings -}}
{{- if hasKey $owned $key -}}
{{- fail (printf "settings: %s is decided by the chart; see %s in values.yaml" $key (get $owned $key)) -}}
{{- end -}}
{{- end -}}
{{- .Values.settings | toJson -}}
{{- end -}}

{{- define "aircheck.affinity" -}}
{{- $term := dict "labelSelector" (dict "matchLabels" .labels) "topologyKey" "kubernetes.io/hostname" -}}
{{- if .affinity -}}
{{ toYaml .affinity }}
{{- else if eq .antiAffinity "hard" -}}
{{ toYaml (dict "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term))) }}
{{- else -}}
{{ toYaml (dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term)))) }}
{{- end -}}
{{- end -}}

{{/* What both roles' pods have in common: who they are, where they may run. */}}
{{- define "aircheck.pod" -}}
{{- $role := index .Values .role -}}
{{- $labels := merge (dict "app.kubernetes.io/component" .role) (include "aircheck.selector" . | fromYaml) -}}
serviceAccountName: {{ include "aircheck.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $role.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext: {{ toYaml .Values.podSecurityContext | nindent 2 }}
affinity: {{ include "aircheck.affinity" (dict "affinity" $role.affinity "antiAffinity" $role.antiAffinity "labels" $labels) | nindent 2 }}
{{- if $role.topologySpread.enabled }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: {{ $role.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels: {{ toYaml $labels | nindent 8 }}
{{- end }}
{{- with $role.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $role.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
