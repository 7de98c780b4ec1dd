{{/* Name of the operator and prefix of everything else. */}}
{{- define "searchops.name" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{/* Names of cluster-wide objects carry the namespace: two releases never fight over one. */}}
{{- define "searchops.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "searchops.name" .) | trunc 100 -}}
{{- end -}}

{{- define "searchops.selector" -}}
app.kubernetes.io/name: searchops
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "searchops.labels" -}}
{{ include "searchops.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "searchops.image" -}}
{{- $path := .image.repository -}}
{{- if .root.Values.image.registry -}}{{- $path = printf "%s/%s" .root.Values.image.registry $path -}}{{- end -}}
{{- if .image.digest -}}{{ printf "%s@%s" $path .image.digest }}
{{- else -}}{{ printf "%s:%s" $path (.image.tag | default .root.Chart.AppVersion) }}{{- end -}}
{{- end -}}

{{/* The user name of the operator's ServiceAccount, as the API server sees it. */}}
{{- define "searchops.operatorUser" -}}
{{- printf "system:serviceaccount:%s:%s" .Release.Namespace (include "searchops.name" .) -}}
{{- end -}}

{{- define "searchops.gatewayUrl" -}}
{{- if .Values.settings.gatewayUrl -}}{{ .Values.settings.gatewayUrl }}
{{- else if .Values.gateway.enabled -}}
{{- printf "http://%s-gateway.%s.svc" (include "searchops.name" .) .Release.Namespace -}}
{{- if ne (int .Values.gateway.service.port) 80 -}}:{{ int .Values.gateway.service.port }}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Pod Security "restricted". */}}
{{- define "searchops.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "searchops.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end -}}
