// A bundle's model with the numbers of its preprocess.json: a picture to a share per class.
import CoreGraphics
import CoreML
import Foundation
import ImageIO
import Preprocess

public struct Answer: Sendable {
    public let label: String
    public let share: Float
}

public struct SampleError: LocalizedError, Sendable {
    public let errorDescription: String?
    init(_ sentence: String) { errorDescription = sentence }
}

/// Of preprocess.json, what a Core ML file needs.
struct Contract: Decodable {
    struct Rule: Decodable {
        let size_px: Int32
        let short_side_px: Int32
        let crop: String
        let interpolation: String
    }
    let size_px: Int32
    let resize: Rule?
    let then: String?
    let mean: [Float]
    let std: [Float]
    let dtype: String
    let layout: String
    let shape: [Int]
    let labels: [String]
}

/// RGB bytes, (height, width, 3).
struct Pixels {
    let rgb: [UInt8]
    let width: Int
    let height: Int

    /// The first frame of a picture file, upright by its EXIF orientation, over white.
    init(_ file: Data) throws {
        guard let source = CGImageSourceCreateWithData(file as CFData, nil),
              let image = CGImageSourceCreateImageAtIndex(source, 0, nil) else {
            throw SampleError("this is no picture that the system reads")
        }
        let facts = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [String: Any]
        let turned = facts?[kCGImagePropertyOrientation as String] as? Int32 ?? 1
        let w = image.width
        let h = image.height
        var rgbx = [UInt8](repeating: 255, count: w * h * 4)
        // In its own colours, as the contract takes them; in sRGB where nothing draws in its own.
        let own = image.colorSpace.flatMap { $0.model == .rgb && $0.supportsOutput ? $0 : nil }
        let spaces = [own, CGColorSpace(name: CGColorSpace.sRGB)].compactMap { $0 }
        let drawn: Bool = rgbx.withUnsafeMutableBytes { bytes in
            for space in spaces {
                guard let context = CGContext(
                    data: bytes.baseAddress, width: w, height: h, bitsPerComponent: 8,
                    bytesPerRow: w * 4, space: space,
                    bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue) else { continue }
                context.draw(image, in: CGRect(x: 0, y: 0, width: w, height: h))
                return true
            }
            return false
        }
        guard drawn else { throw SampleError("this picture's colours can't be read") }
        var upright = [UInt8](repeating: 0, count: w * h * 3)
        edgeres_upright(rgbx, Int32(w), Int32(h), turned, &upright)
        rgb = upright
        let lies = (5...8).contains(turned)
        width = lies ? h : w
        height = lies ? w : h
    }
}

/// An actor: it loads and answers away from the main thread.
public actor Classifier {
    private let said: Contract
    private let model: MLModel

    /// - Parameter folder: has model/, golden/ and preprocess.json of the bundle.
    public init(folder: URL) throws {
        struct Golden: Decodable { let model: String }
        let read = { (name: String) in try Data(contentsOf: folder.appendingPathComponent(name)) }
        let contract = try JSONDecoder().decode(Contract.self, from: read("preprocess.json"))
        if contract.then != nil {
            throw SampleError("this sample doesn't do the second scaling of preprocess.json")
        }
        if contract.dtype != "float32" {
            throw SampleError("this sample gives float32, and the model takes \(contract.dtype)")
        }
        let golden = try JSONDecoder().decode(Golden.self, from: read("golden/golden.json"))
        let compiled = try MLModel.compileModel(at: folder.appendingPathComponent(golden.model))
        model = try MLModel(contentsOf: compiled)
        said = contract
    }

    /// The likeliest classes of a picture file, the likeliest first.
    public func likeliest(in file: Data, count: Int = 5) throws -> [Answer] {
        let shares = try self.shares(Pixels(file))
        let order = shares.indices.sorted { shares[$0] > shares[$1] }
        return order.prefix(count).map { Answer(label: said.labels[$0], share: shares[$0]) }
    }

    func values(_ picture: Pixels) throws -> [Float] {
        let rule = said.resize
        var values = [Float](repeating: 0, count: Int(said.size_px * said.size_px) * 3)
        let status = edgeres_prepared(
            picture.rgb, Int32(picture.width), Int32(picture.height), said.size_px,
            rule?.short_side_px ?? 0, rule?.crop ?? "none", rule?.interpolation ?? "bilinear",
            said.mean, Int32(said.mean.count), said.std, Int32(said.std.count),
            said.layout == "NCHW" ? 1 : 0, &values)
        if status != 0 {
            throw SampleError("preprocess.json doesn't say how a picture comes to \(said.size_px) px")
        }
        return values
    }

    private func shares(_ picture: Pixels) throws -> [Float] {
        let values = try self.values(picture)
        let array = try MLMultiArray(shape: said.shape.map { NSNumber(value: $0) }, dataType: .float32)
        for (i, value) in values.enumerated() { array[i] = NSNumber(value: value) }
        let inputs = model.modelDescription.inputDescriptionsByName
        let outputs = model.modelDescription.outputDescriptionsByName
        guard let input = inputs.keys.first, let output = outputs.keys.first else {
            throw SampleError("the model has no input or no output")
        }
        let answer = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: [input: array]))
        guard let found = answer.featureValue(for: output)?.multiArrayValue else {
            throw SampleError("the model's answer is no array")
        }
        let y = said.labels.indices.map { found[$0].floatValue }
        let most = y.max() ?? 0
        let e = y.map { exp($0 - most) }
        let sum = e.reduce(0, +)
        return e.map { $0 / sum }
    }
}
