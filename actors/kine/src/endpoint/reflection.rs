//! gRPC's reflection, in both of its versions: which services there are, and the files that describe them. The table is
//! made from `proto/` when the crate is built.

use std::collections::BTreeSet;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};

use super::router::services;

/// A file of `proto/`.
struct File {
    name: &'static str,
    /// Names of files.
    needs: &'static [&'static str],
    /// Full names of messages, enums, services and calls.
    declares: &'static [&'static str],
    /// The file in the form of descriptor.proto.
    bytes: &'static [u8],
}

const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/descriptors.rs"));

/// What is asked, whichever version asks.
#[derive(Clone, Debug)]
enum Question<'a> {
    FileNamed(&'a str),
    FileWith(&'a str),
    Extension(&'a str),
    ExtensionsOf(&'a str),
    Services,
    Nothing,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Files(Vec<Bytes>),
    NoExtensions(String),
    Services(Vec<&'static str>),
    Error(Code, String),
}

fn answer(question: &Question<'_>) -> Answer {
    let find = |found: Option<&'static File>, what: &str| match found {
        Some(file) => Answer::Files(with_needs(file)),
        None => Answer::Error(Code::NotFound, format!("nothing is known of {what:?}")),
    };
    let declaring = |name: &str| FILES.iter().find(|file| file.declares.contains(&name));
    match question {
        Question::FileNamed(name) => find(FILES.iter().find(|file| file.name == *name), name),
        Question::FileWith(name) => find(declaring(name.trim_start_matches('.')), name),
        // Nothing here is extended.
        Question::Extension(name) => find(None, name),
        Question::ExtensionsOf(name) if declaring(name).is_some() => Answer::NoExtensions((*name).to_owned()),
        Question::ExtensionsOf(name) => find(None, name),
        Question::Services => Answer::Services(services().collect()),
        Question::Nothing => Answer::Error(Code::InvalidArgument, "nothing was asked".to_owned()),
    }
}

/// A file behind all that it needs.
fn with_needs(file: &'static File) -> Vec<Bytes> {
    fn add(file: &'static File, seen: &mut BTreeSet<&'static str>, files: &mut Vec<Bytes>) {
        if seen.insert(file.name) {
            for name in file.needs {
                if let Some(needed) = FILES.iter().find(|file| file.name == *name) {
                    add(needed, seen, files);
                }
            }
            files.push(Bytes::from_static(file.bytes));
        }
    }
    let (mut seen, mut files) = (BTreeSet::new(), Vec::new());
    add(file, &mut seen, &mut files);
    files
}

/// See the module's page.
pub(crate) struct ReflectionService;

/// The two versions differ in the name of their package only, and so do the types that are made from them.
macro_rules! version {
    ($version:ident) => {
        mod $version {
            use super::*;
            use crate::wire::reflection::$version::server_reflection_request::MessageRequest;
            use crate::wire::reflection::$version::server_reflection_response::MessageResponse;
            use crate::wire::reflection::$version::server_reflection_server::ServerReflection;
            use crate::wire::reflection::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
                ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
            };

            fn respond(request: ServerReflectionRequest) -> ServerReflectionResponse {
                let question = match &request.message_request {
                    Some(MessageRequest::FileByFilename(name)) => Question::FileNamed(name),
                    Some(MessageRequest::FileContainingSymbol(name)) => Question::FileWith(name),
                    Some(MessageRequest::FileContainingExtension(what)) => Question::Extension(&what.containing_type),
                    Some(MessageRequest::AllExtensionNumbersOfType(name)) => Question::ExtensionsOf(name),
                    Some(MessageRequest::ListServices(_)) => Question::Services,
                    None => Question::Nothing,
                };
                let message = match answer(&question) {
                    Answer::Files(file_descriptor_proto) => {
                        MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto })
                    }
                    Answer::NoExtensions(base_type_name) => {
                        MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                            base_type_name,
                            extension_number: Vec::new(),
                        })
                    }
                    Answer::Services(names) => {
                        let service = names.into_iter().map(|name| ServiceResponse { name: name.to_owned() }).collect();
                        MessageResponse::ListServicesResponse(ListServiceResponse { service })
                    }
                    Answer::Error(code, error_message) => {
                        MessageResponse::ErrorResponse(ErrorResponse { error_code: code.into(), error_message })
                    }
                };
                ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(message),
                }
            }

            #[tonic::async_trait]
            impl ServerReflection for ReflectionService {
                type ServerReflectionInfoStream =
                    Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let answers = request.into_inner().map(|request| request.map(respond));
                    Ok(Response::new(Box::pin(answers)))
                }
            }
        }
    };
}

version!(v1);
version!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;

    fn files(question: &Question<'_>) -> usize {
        match answer(question) {
            Answer::Files(files) => files.len(),
            other => panic!("{question:?}: {other:?}"),
        }
    }

    #[test]
    fn a_file_comes_with_what_it_needs() {
        assert_eq!(files(&Question::FileNamed("mvcc.proto")), 1);
        for name in ["etcdserverpb.KV", "etcdserverpb.KV.Range", "etcdserverpb.Compare.CompareTarget"] {
            assert_eq!(files(&Question::FileWith(name)), 2, "{name}");
        }
        assert!(matches!(answer(&Question::FileWith("etcdserverpb.Nothing")), Answer::Error(Code::NotFound, _)));
        assert!(matches!(answer(&Question::Nothing), Answer::Error(Code::InvalidArgument, _)));
        assert!(matches!(answer(&Question::ExtensionsOf("mvccpb.Event")), Answer::NoExtensions(_)));
    }

    #[test]
    fn every_service_is_listed_and_described() {
        let Answer::Services(services) = answer(&Question::Services) else { panic!("no services") };
        assert!(services.contains(&"etcdserverpb.KV") && services.contains(&"grpc.reflection.v1.ServerReflection"));
        for service in services {
            assert!(files(&Question::FileWith(service)) > 0, "{service}");
        }
    }
}
