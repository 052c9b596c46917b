"""https towards the pods of a ModelServer."""

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tls
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google.protobuf import Any

from extproc.state.records import Tls

SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"


def tls_socket(options: Tls) -> core.TransportSocket:
    """TLS that sends `server_name` as SNI and, if it verifies, takes only a certificate for that name.

    Envoy refuses the cluster if the bundle cannot be read on its file system.
    """
    context = tls.UpstreamTlsContext(
        sni=options.server_name,
        common_tls_context=tls.CommonTlsContext(
            alpn_protocols=["http/1.1"],
            validation_context=_validation(options) if options.verify else None,
        ),
    )
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))


def _validation(options: Tls) -> tls.CertificateValidationContext:
    name = tls.SubjectAltNameMatcher(
        san_type=tls.SubjectAltNameMatcherSanType.DNS,
        matcher=matcher.StringMatcher(exact=options.server_name),
    )
    return tls.CertificateValidationContext(
        trusted_ca=core.DataSource(filename=options.ca_file or SYSTEM_CA),
        match_typed_subject_alt_names=[name],
    )
