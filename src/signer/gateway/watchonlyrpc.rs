//! Generated from `watchonly.proto` by prost and tonic; do not edit. `tests/proto_generated.rs` compares and regenerates it.

/// From the node to the signer.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignCoordinatorRequest {
    /// 1 for the answer to the registration; from 2 on for requests, never the same twice on one stream.
    #[prost(uint64, tag = "1")]
    pub request_id: u64,
    #[prost(
        oneof = "sign_coordinator_request::SignRequestType",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 1001"
    )]
    pub sign_request_type: ::core::option::Option<
        sign_coordinator_request::SignRequestType,
    >,
}
/// Nested message and enum types in `SignCoordinatorRequest`.
pub mod sign_coordinator_request {
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Oneof)]
    pub enum SignRequestType {
        #[prost(message, tag = "2")]
        RegistrationResponse(super::RegistrationResponse),
        #[prost(bool, tag = "3")]
        Ping(bool),
        #[prost(message, tag = "4")]
        SharedKeyRequest(super::SharedKeyRequest),
        #[prost(bytes, tag = "5")]
        SignMessageReq(::prost::bytes::Bytes),
        #[prost(bytes, tag = "6")]
        MuSig2SessionRequest(::prost::bytes::Bytes),
        #[prost(bytes, tag = "7")]
        MuSig2RegisterNoncesRequest(::prost::bytes::Bytes),
        #[prost(bytes, tag = "8")]
        MuSig2RegisterCombinedNonceRequest(::prost::bytes::Bytes),
        #[prost(bytes, tag = "9")]
        MuSig2GetCombinedNonceRequest(::prost::bytes::Bytes),
        #[prost(bytes, tag = "10")]
        MuSig2SignRequest(::prost::bytes::Bytes),
        #[prost(bytes, tag = "11")]
        MuSig2CombineSigRequest(::prost::bytes::Bytes),
        #[prost(bytes, tag = "12")]
        MuSig2CleanupRequest(::prost::bytes::Bytes),
        #[prost(bytes, tag = "13")]
        SignPsbtRequest(::prost::bytes::Bytes),
        /// Pilotlight's own, sent only to a signer whose call carries the metadata `pilotlight-agent: 1`, and then before the
        /// registration is answered. lnd knows nothing of it and never sees it.
        #[prost(message, tag = "1001")]
        ProofRequest(super::ProofRequest),
    }
}
/// From the signer to the node.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignCoordinatorResponse {
    /// The request that this answers; 1 for the registration, which is the first message.
    #[prost(uint64, tag = "1")]
    pub ref_request_id: u64,
    #[prost(
        oneof = "sign_coordinator_response::SignResponseType",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 1001"
    )]
    pub sign_response_type: ::core::option::Option<
        sign_coordinator_response::SignResponseType,
    >,
}
/// Nested message and enum types in `SignCoordinatorResponse`.
pub mod sign_coordinator_response {
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Oneof)]
    pub enum SignResponseType {
        #[prost(message, tag = "2")]
        SignerRegistration(super::SignerRegistration),
        #[prost(bool, tag = "3")]
        Pong(bool),
        #[prost(message, tag = "4")]
        SharedKeyResponse(super::SharedKeyResponse),
        #[prost(bytes, tag = "5")]
        SignMessageResp(::prost::bytes::Bytes),
        #[prost(bytes, tag = "6")]
        MuSig2SessionResponse(::prost::bytes::Bytes),
        #[prost(bytes, tag = "7")]
        MuSig2RegisterNoncesResponse(::prost::bytes::Bytes),
        #[prost(bytes, tag = "8")]
        MuSig2RegisterCombinedNonceResponse(::prost::bytes::Bytes),
        #[prost(bytes, tag = "9")]
        MuSig2GetCombinedNonceResponse(::prost::bytes::Bytes),
        #[prost(bytes, tag = "10")]
        MuSig2SignResponse(::prost::bytes::Bytes),
        #[prost(bytes, tag = "11")]
        MuSig2CombineSigResponse(::prost::bytes::Bytes),
        #[prost(bytes, tag = "12")]
        MuSig2CleanupResponse(::prost::bytes::Bytes),
        #[prost(bytes, tag = "13")]
        SignPsbtResponse(::prost::bytes::Bytes),
        #[prost(message, tag = "14")]
        SignerError(super::SignerError),
        /// Pilotlight's own: the answer to `proof_request`.
        #[prost(message, tag = "1001")]
        ProofResponse(super::ProofResponse),
    }
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignerRegistration {
    #[prost(bytes = "vec", tag = "1")]
    pub registration_challenge: ::prost::alloc::vec::Vec<u8>,
    #[prost(string, tag = "2")]
    pub registration_info: ::prost::alloc::string::String,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct RegistrationResponse {
    #[prost(oneof = "registration_response::RegistrationResponseType", tags = "1, 2")]
    pub registration_response_type: ::core::option::Option<
        registration_response::RegistrationResponseType,
    >,
}
/// Nested message and enum types in `RegistrationResponse`.
pub mod registration_response {
    #[derive(Clone, PartialEq, Eq, Hash, ::prost::Oneof)]
    pub enum RegistrationResponseType {
        #[prost(message, tag = "1")]
        RegistrationComplete(super::RegistrationComplete),
        #[prost(string, tag = "2")]
        RegistrationError(::prost::alloc::string::String),
    }
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct RegistrationComplete {
    /// lnd's signer does not check it.
    #[prost(string, tag = "1")]
    pub signature: ::prost::alloc::string::String,
    #[prost(string, tag = "2")]
    pub registration_info: ::prost::alloc::string::String,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SignerError {
    #[prost(string, tag = "1")]
    pub error: ::prost::alloc::string::String,
}
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct KeyLocator {
    #[prost(int32, tag = "1")]
    pub key_family: i32,
    #[prost(int32, tag = "2")]
    pub key_index: i32,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct KeyDescriptor {
    #[prost(bytes = "vec", tag = "1")]
    pub raw_key_bytes: ::prost::alloc::vec::Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub key_loc: ::core::option::Option<KeyLocator>,
}
/// One ECDH. `key_loc` and `key_desc` together are an error.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct SharedKeyRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub ephemeral_pubkey: ::prost::alloc::vec::Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub key_loc: ::core::option::Option<KeyLocator>,
    #[prost(message, optional, tag = "3")]
    pub key_desc: ::core::option::Option<KeyDescriptor>,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
#[prost(skip_debug)]
pub struct SharedKeyResponse {
    /// SHA-256 of the compressed product point: BOLT 8's ECDH output as it is.
    #[prost(bytes = "vec", tag = "1")]
    pub shared_key: ::prost::alloc::vec::Vec<u8>,
}
/// Asks the signer to prove that it can use the node's key, and that it sees the certificate that this server shows.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ProofRequest {
    /// A fresh random point, used once: 33 bytes, compressed.
    #[prost(bytes = "vec", tag = "1")]
    pub ephemeral_pubkey: ::prost::alloc::vec::Vec<u8>,
}
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
#[prost(skip_debug)]
pub struct ProofResponse {
    /// SHA-256 of three things in a row: the 26 ASCII bytes `pilotlight signer proof v1`, the 32-byte ECDH output, and the SHA-256
    /// of the server's certificate (DER) as the signer saw it in this connection's TLS handshake.
    #[prost(bytes = "vec", tag = "1")]
    pub answer: ::prost::alloc::vec::Vec<u8>,
}
/// Generated client implementations.
pub mod watch_only_client {
    #![allow(
        unused_variables,
        dead_code,
        missing_docs,
        clippy::wildcard_imports,
        clippy::let_unit_value,
    )]
    use tonic::codegen::*;
    use tonic::codegen::http::Uri;
    #[derive(Debug, Clone)]
    pub struct WatchOnlyClient<T> {
        inner: tonic::client::Grpc<T>,
    }
    impl<T> WatchOnlyClient<T>
    where
        T: tonic::client::GrpcService<tonic::body::Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: Body<Data = Bytes> + std::marker::Send + 'static,
        <T::ResponseBody as Body>::Error: Into<StdError> + std::marker::Send,
    {
        pub fn new(inner: T) -> Self {
            let inner = tonic::client::Grpc::new(inner);
            Self { inner }
        }
        pub fn with_origin(inner: T, origin: Uri) -> Self {
            let inner = tonic::client::Grpc::with_origin(inner, origin);
            Self { inner }
        }
        pub fn with_interceptor<F>(
            inner: T,
            interceptor: F,
        ) -> WatchOnlyClient<InterceptedService<T, F>>
        where
            F: tonic::service::Interceptor,
            T::ResponseBody: Default,
            T: tonic::codegen::Service<
                http::Request<tonic::body::Body>,
                Response = http::Response<
                    <T as tonic::client::GrpcService<tonic::body::Body>>::ResponseBody,
                >,
            >,
            <T as tonic::codegen::Service<
                http::Request<tonic::body::Body>,
            >>::Error: Into<StdError> + std::marker::Send + std::marker::Sync,
        {
            WatchOnlyClient::new(InterceptedService::new(inner, interceptor))
        }
        /// Compress requests with the given encoding.
        ///
        /// This requires the server to support it otherwise it might respond with an
        /// error.
        #[must_use]
        pub fn send_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.inner = self.inner.send_compressed(encoding);
            self
        }
        /// Enable decompressing responses.
        #[must_use]
        pub fn accept_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.inner = self.inner.accept_compressed(encoding);
            self
        }
        /// Limits the maximum size of a decoded message.
        ///
        /// Default: `4MB`
        #[must_use]
        pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
            self.inner = self.inner.max_decoding_message_size(limit);
            self
        }
        /// Limits the maximum size of an encoded message.
        ///
        /// Default: `usize::MAX`
        #[must_use]
        pub fn max_encoding_message_size(mut self, limit: usize) -> Self {
            self.inner = self.inner.max_encoding_message_size(limit);
            self
        }
        /// One stream is one signer. The metadata `macaroon` holds the lower-case hex of a binary macaroon.
        pub async fn sign_coordinator_streams(
            &mut self,
            request: impl tonic::IntoStreamingRequest<
                Message = super::SignCoordinatorResponse,
            >,
        ) -> std::result::Result<
            tonic::Response<tonic::codec::Streaming<super::SignCoordinatorRequest>>,
            tonic::Status,
        > {
            self.inner
                .ready()
                .await
                .map_err(|e| {
                    tonic::Status::unknown(
                        format!("Service was not ready: {}", e.into()),
                    )
                })?;
            let codec = tonic_prost::ProstCodec::default();
            let path = http::uri::PathAndQuery::from_static(
                "/watchonlyrpc.WatchOnly/SignCoordinatorStreams",
            );
            let mut req = request.into_streaming_request();
            req.extensions_mut()
                .insert(
                    GrpcMethod::new("watchonlyrpc.WatchOnly", "SignCoordinatorStreams"),
                );
            self.inner.streaming(req, path, codec).await
        }
    }
}
/// Generated server implementations.
pub mod watch_only_server {
    #![allow(
        unused_variables,
        dead_code,
        missing_docs,
        clippy::wildcard_imports,
        clippy::let_unit_value,
    )]
    use tonic::codegen::*;
    /// Generated trait containing gRPC methods that should be implemented for use with WatchOnlyServer.
    #[async_trait]
    pub trait WatchOnly: std::marker::Send + std::marker::Sync + 'static {
        /// Server streaming response type for the SignCoordinatorStreams method.
        type SignCoordinatorStreamsStream: tonic::codegen::tokio_stream::Stream<
                Item = std::result::Result<super::SignCoordinatorRequest, tonic::Status>,
            >
            + std::marker::Send
            + 'static;
        /// One stream is one signer. The metadata `macaroon` holds the lower-case hex of a binary macaroon.
        async fn sign_coordinator_streams(
            &self,
            request: tonic::Request<tonic::Streaming<super::SignCoordinatorResponse>>,
        ) -> std::result::Result<
            tonic::Response<Self::SignCoordinatorStreamsStream>,
            tonic::Status,
        >;
    }
    #[derive(Debug)]
    pub struct WatchOnlyServer<T> {
        inner: Arc<T>,
        accept_compression_encodings: EnabledCompressionEncodings,
        send_compression_encodings: EnabledCompressionEncodings,
        max_decoding_message_size: Option<usize>,
        max_encoding_message_size: Option<usize>,
    }
    impl<T> WatchOnlyServer<T> {
        pub fn new(inner: T) -> Self {
            Self::from_arc(Arc::new(inner))
        }
        pub fn from_arc(inner: Arc<T>) -> Self {
            Self {
                inner,
                accept_compression_encodings: Default::default(),
                send_compression_encodings: Default::default(),
                max_decoding_message_size: None,
                max_encoding_message_size: None,
            }
        }
        pub fn with_interceptor<F>(
            inner: T,
            interceptor: F,
        ) -> InterceptedService<Self, F>
        where
            F: tonic::service::Interceptor,
        {
            InterceptedService::new(Self::new(inner), interceptor)
        }
        /// Enable decompressing requests with the given encoding.
        #[must_use]
        pub fn accept_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.accept_compression_encodings.enable(encoding);
            self
        }
        /// Compress responses with the given encoding, if the client supports it.
        #[must_use]
        pub fn send_compressed(mut self, encoding: CompressionEncoding) -> Self {
            self.send_compression_encodings.enable(encoding);
            self
        }
        /// Limits the maximum size of a decoded message.
        ///
        /// Default: `4MB`
        #[must_use]
        pub fn max_decoding_message_size(mut self, limit: usize) -> Self {
            self.max_decoding_message_size = Some(limit);
            self
        }
        /// Limits the maximum size of an encoded message.
        ///
        /// Default: `usize::MAX`
        #[must_use]
        pub fn max_encoding_message_size(mut self, limit: usize) -> Self {
            self.max_encoding_message_size = Some(limit);
            self
        }
    }
    impl<T, B> tonic::codegen::Service<http::Request<B>> for WatchOnlyServer<T>
    where
        T: WatchOnly,
        B: Body + std::marker::Send + 'static,
        B::Error: Into<StdError> + std::marker::Send + 'static,
    {
        type Response = http::Response<tonic::body::Body>;
        type Error = std::convert::Infallible;
        type Future = BoxFuture<Self::Response, Self::Error>;
        fn poll_ready(
            &mut self,
            _cx: &mut Context<'_>,
        ) -> Poll<std::result::Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, req: http::Request<B>) -> Self::Future {
            match req.uri().path() {
                "/watchonlyrpc.WatchOnly/SignCoordinatorStreams" => {
                    #[allow(non_camel_case_types)]
                    struct SignCoordinatorStreamsSvc<T: WatchOnly>(pub Arc<T>);
                    impl<
                        T: WatchOnly,
                    > tonic::server::StreamingService<super::SignCoordinatorResponse>
                    for SignCoordinatorStreamsSvc<T> {
                        type Response = super::SignCoordinatorRequest;
                        type ResponseStream = T::SignCoordinatorStreamsStream;
                        type Future = BoxFuture<
                            tonic::Response<Self::ResponseStream>,
                            tonic::Status,
                        >;
                        fn call(
                            &mut self,
                            request: tonic::Request<
                                tonic::Streaming<super::SignCoordinatorResponse>,
                            >,
                        ) -> Self::Future {
                            let inner = Arc::clone(&self.0);
                            let fut = async move {
                                <T as WatchOnly>::sign_coordinator_streams(&inner, request)
                                    .await
                            };
                            Box::pin(fut)
                        }
                    }
                    let accept_compression_encodings = self.accept_compression_encodings;
                    let send_compression_encodings = self.send_compression_encodings;
                    let max_decoding_message_size = self.max_decoding_message_size;
                    let max_encoding_message_size = self.max_encoding_message_size;
                    let inner = self.inner.clone();
                    let fut = async move {
                        let method = SignCoordinatorStreamsSvc(inner);
                        let codec = tonic_prost::ProstCodec::default();
                        let mut grpc = tonic::server::Grpc::new(codec)
                            .apply_compression_config(
                                accept_compression_encodings,
                                send_compression_encodings,
                            )
                            .apply_max_message_size_config(
                                max_decoding_message_size,
                                max_encoding_message_size,
                            );
                        let res = grpc.streaming(method, req).await;
                        Ok(res)
                    };
                    Box::pin(fut)
                }
                _ => {
                    Box::pin(async move {
                        let mut response = http::Response::new(
                            tonic::body::Body::default(),
                        );
                        let headers = response.headers_mut();
                        headers
                            .insert(
                                tonic::Status::GRPC_STATUS,
                                (tonic::Code::Unimplemented as i32).into(),
                            );
                        headers
                            .insert(
                                http::header::CONTENT_TYPE,
                                tonic::metadata::GRPC_CONTENT_TYPE,
                            );
                        Ok(response)
                    })
                }
            }
        }
    }
    impl<T> Clone for WatchOnlyServer<T> {
        fn clone(&self) -> Self {
            let inner = self.inner.clone();
            Self {
                inner,
                accept_compression_encodings: self.accept_compression_encodings,
                send_compression_encodings: self.send_compression_encodings,
                max_decoding_message_size: self.max_decoding_message_size,
                max_encoding_message_size: self.max_encoding_message_size,
            }
        }
    }
    /// Generated gRPC service name
    pub const SERVICE_NAME: &str = "watchonlyrpc.WatchOnly";
    impl<T> tonic::server::NamedService for WatchOnlyServer<T> {
        const NAME: &'static str = SERVICE_NAME;
    }
}
